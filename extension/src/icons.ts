import { LabIcon } from '@jupyterlab/ui-components';

import sealedSvg from '../style/sealed.svg';
import trustSvg from '../style/trust.svg';

/** The panel's icon: a shield. */
export const trustIcon = new LabIcon({ name: 'sealbook:trust', svgstr: trustSvg });

/** The icon of sealed files: a page with a lock. */
export const sealedIcon = new LabIcon({ name: 'sealbook:sealed', svgstr: sealedSvg });
