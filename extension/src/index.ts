import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, IToolbarWidgetRegistry } from '@jupyterlab/apputils';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { IDefaultDrive, type Contents } from '@jupyterlab/services';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { Actions } from './actions';
import type { IPlace } from './cover';
import { Details } from './details';
import { sealedIcon, trustIcon } from './icons';
import { TrustIndicator } from './indicator';
import { TrustModel } from './model';
import { isCollapsed, isConnected, nearest, Weak, widthOf } from './natives';
import { CoverNotice } from './notice';
import { TrustPanel } from './panel';
import { SealedFiles, SUFFIX } from './sealedfiles';
import { FACTORY, NoContent, PROVIDER, SealedViewFactory } from './sealedview';
import { Server } from './server';
import { Words } from './words';

const OPEN_PANEL = 'sealbook:open-panel';
/** The file type of sealed files. */
const SEALED = 'sealbook-sealed';

/** Whether the extension runs. A script of the page can get at the plugins; they are not for it. */
let active = false;

/** Whether a widget's element has a place on the screen; JupyterLab's own word for it, `isVisible`, can be replaced. */
function isSeen(node: Element): boolean {
  return isConnected(node) && !isCollapsed(node);
}

/** The indicator in toolbars and the status bar, and the panel. */
const trust: JupyterFrontEndPlugin<void> = {
  id: 'sealbook:plugin',
  description: 'Shows what the verifier found about the kernel of a notebook.',
  autoStart: true,
  requires: [INotebookTracker, IToolbarWidgetRegistry],
  optional: [ITranslator, IStatusBar, ICommandPalette, ILayoutRestorer, ILabShell],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    toolbars: IToolbarWidgetRegistry,
    translator: ITranslator | null,
    statusBar: IStatusBar | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    labShell: ILabShell | null
  ) => {
    if (active) {
      throw new Error('The trust display of this page is active already.');
    }
    active = true;
    const trans = (translator ?? nullTranslator).load('sealbook');
    const words = new Words(trans);
    const notice = new CoverNotice(words);
    const server = new Server(app.serviceManager.serverSettings);
    const open = () => void app.commands.execute(OPEN_PANEL);

    const models = new Weak<NotebookPanel, TrustModel>();
    const places = new Weak<NotebookPanel, IPlace>();
    const placeOf = (notebook: NotebookPanel): IPlace => {
      let place = places.get(notebook);
      if (!place) {
        const node = notebook.node;
        const toolbar = notebook.toolbar.node;
        place = {
          seen: () => isSeen(node),
          // A toolbar that is hidden or made small by a style is no reason.
          folds: () => isSeen(toolbar) && widthOf(toolbar) > 0.9 * widthOf(node),
          holder: null
        };
        places.set(notebook, place);
      }
      return place;
    };
    const modelOf = (notebook: NotebookPanel): TrustModel => {
      let model = models.get(notebook);
      if (!model) {
        model = new TrustModel(notebook.sessionContext, notebook.context, server);
        models.set(notebook, model);
        notebook.disposed.connect(() => models.get(notebook)?.dispose());
      }
      return model;
    };

    toolbars.addFactory<NotebookPanel>(
      'Notebook',
      'sealbook-trust',
      notebook =>
        new TrustIndicator({
          model: modelOf(notebook),
          words,
          notice,
          place: placeOf(notebook),
          announced: true,
          open
        })
    );

    const panel = new TrustPanel(new Actions(server, trans), words, trans);
    app.shell.add(panel, 'right', { rank: 600, type: 'Kernel Trust' });
    restorer?.add(panel, panel.id);

    // Given to nobody: what lets the indicator in the status bar show another notebook's state, and where that is.
    let showInBar: (model: TrustModel | null) => void = () => undefined;
    let followed: Element | null = null;
    const barPlace: IPlace = {
      seen: () => {
        if (followed === null || !isSeen(followed)) {
          return false;
        }
        // Without one it was taken out of there. People may hide the whole bar.
        const bar = barPlace.holder ? nearest(barPlace.holder, '#jp-main-statusbar') : null;
        return bar === null || isSeen(bar);
      },
      folds: () => false,
      holder: null
    };
    const inBar = statusBar
      ? new TrustIndicator({
          model: null,
          bind: show => {
            showInBar = show;
          },
          words,
          notice,
          place: barPlace,
          announced: false,
          open
        })
      : null;
    if (statusBar && inBar) {
      statusBar.registerStatusItem('sealbook:trust', {
        item: inBar,
        align: 'left',
        rank: 3,
        isActive: () => notebooks.currentWidget?.isVisible ?? false,
        ...(labShell ? { activeStateChanged: labShell.layoutModified } : {})
      });
    }

    const follow = () => {
      const notebook = notebooks.currentWidget;
      const model = notebook ? modelOf(notebook) : null;
      followed = notebook ? notebook.node : null;
      showInBar(model);
      panel.details =
        notebook && model
          ? panel.details?.trust === model
            ? panel.details
            : new Details(model, notebook.sessionContext, server, () => panel.isVisible)
          : null;
    };
    notebooks.currentChanged.connect(follow);
    follow();

    app.commands.addCommand(OPEN_PANEL, {
      label: trans.__('Kernel Trust'),
      caption: trans.__('Show what was found about the kernel of this notebook'),
      icon: trustIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => {
        app.shell.activateById(panel.id);
      }
    });
    palette?.addItem({ command: OPEN_PANEL, category: trans.__('Kernel Operations') });
  }
};

/** Sealed files in the file browser. */
const files: JupyterFrontEndPlugin<void> = {
  id: 'sealbook:files',
  description: 'Inspects, seals, unseals and rekeys files in the file browser.',
  autoStart: true,
  optional: [ITranslator, IFileBrowserFactory, ICommandPalette, IDefaultDrive],
  activate: (
    app: JupyterFrontEnd,
    translator: ITranslator | null,
    browsers: IFileBrowserFactory | null,
    palette: ICommandPalette | null,
    drive: Contents.IDrive | null
  ) => {
    const trans = (translator ?? nullTranslator).load('sealbook');
    const contents = app.serviceManager.contents;
    const sealed = new SealedFiles(new Server(app.serviceManager.serverSettings), contents, trans);

    const providers = drive?.contentProviderRegistry;
    if (drive && providers) {
      providers.register(PROVIDER, new NoContent(drive));
    }
    app.docRegistry.addFileType({
      name: SEALED,
      displayName: trans.__('Sealed file'),
      extensions: [SUFFIX],
      mimeTypes: ['application/octet-stream'],
      contentType: 'file',
      fileFormat: 'base64',
      icon: sealedIcon
    });
    app.docRegistry.addWidgetFactory(
      new SealedViewFactory(
        {
          name: FACTORY,
          label: trans.__('Sealed file'),
          modelName: 'text',
          fileTypes: [SEALED],
          defaultFor: [SEALED],
          readOnly: true,
          ...(providers ? { contentProviderId: PROVIDER } : {})
        },
        sealed,
        trans
      )
    );

    const selected = (): string[] =>
      [...(browsers?.tracker.currentWidget?.selectedItems() ?? [])]
        .filter(item => item.type !== 'directory')
        .map(item => item.path);
    const addCommand = (
      id: string,
      label: string,
      ofSealed: boolean,
      execute: (path: string) => Promise<unknown>
    ) => {
      app.commands.addCommand(id, {
        label,
        icon: sealedIcon.bindprops({ stylesheet: 'menuItem' }),
        describedBy: { args: { type: 'object', properties: {} } },
        isEnabled: () => selected().length === 1 && selected()[0].endsWith(SUFFIX) === ofSealed,
        execute: async () => {
          const [path] = selected();
          if (path !== undefined) {
            await execute(path);
            await browsers?.tracker.currentWidget?.model.refresh();
          }
        }
      });
      palette?.addItem({ command: id, category: trans.__('File Operations') });
    };
    addCommand('sealbook:inspect', trans.__('Inspect Sealed File'), true, path =>
      app.commands.execute('docmanager:open', { path, factory: FACTORY })
    );
    addCommand('sealbook:unseal', trans.__('Unseal to…'), true, path => sealed.unseal(path));
    addCommand('sealbook:rekey', trans.__('Rekey…'), true, path => sealed.rekey(path));
    addCommand('sealbook:seal', trans.__('Seal…'), false, path => sealed.seal(path));
  }
};

for (const plugin of [trust, files]) {
  Object.freeze(plugin.requires);
  Object.freeze(plugin.optional);
}
export default Object.freeze([Object.freeze(trust), Object.freeze(files)]);
