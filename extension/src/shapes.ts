import { append, setAttribute, svgElement } from './natives';
import type { ShownState } from './trust';

/** One form for each state, told apart without colour. In a square of 16 by 16; `line` is drawn over `area`. */
const SHAPES: Readonly<Record<ShownState | 'stale', { readonly area: string; readonly line: string }>> = {
  // A shield with a tick.
  attested: { area: 'M8 1l6 2v5c0 4-2.6 6-6 7-3.4-1-6-3-6-7V3z', line: 'M5 8l2.2 2.2L11 6.2' },
  // A hexagon with a wave: something that stands for something else.
  simulated: { area: 'M8 .8l6.4 3.6v7.2L8 15.2l-6.4-3.6V4.4z', line: 'M4.2 9c1.3-3 2.5-3 3.8-1s2.5 2 3.8-1' },
  // An open padlock.
  'not attested': { area: 'M3 7h10v8H3z', line: 'M5 7V4.5a3 3 0 0 1 5.6-1.5M8 10v2' },
  // An octagon with a cross.
  refused: { area: 'M5 1h6l4 4v6l-4 4H5l-4-4V5z', line: 'M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2' },
  // Three dots.
  starting: { area: 'M1.2 8a1.8 1.8 0 1 0 3.6 0 1.8 1.8 0 1 0-3.6 0M6.2 8a1.8 1.8 0 1 0 3.6 0 1.8 1.8 0 1 0-3.6 0M11.2 8a1.8 1.8 0 1 0 3.6 0 1.8 1.8 0 1 0-3.6 0', line: '' },
  // An empty ring.
  none: { area: '', line: 'M2.5 8a5.5 5.5 0 1 0 11 0 5.5 5.5 0 1 0-11 0' },
  // An exclamation mark in a triangle.
  unknown: { area: 'M8 1l7.4 13.6H.6z', line: 'M8 6v4M8 12.2v.2' },
  // A clock.
  stale: { area: 'M1 8a7 7 0 1 0 14 0A7 7 0 1 0 1 8', line: 'M8 3.8V8l2.8 2' }
};

/** Draw the form of a state. */
export function drawShape(name: ShownState | 'stale'): SVGElement {
  const svg = svgElement('svg');
  setAttribute(svg, 'viewBox', '0 0 16 16');
  setAttribute(svg, 'width', '14');
  setAttribute(svg, 'height', '14');
  setAttribute(svg, 'aria-hidden', 'true');
  drawPath(svg, 'area', SHAPES[name].area);
  drawPath(svg, 'line', SHAPES[name].line);
  return svg;
}

function drawPath(svg: SVGElement, name: string, line: string): void {
  const path = svgElement('path');
  setAttribute(path, 'class', name);
  setAttribute(path, 'd', line);
  append(svg, path);
}
