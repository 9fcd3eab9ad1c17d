// Places for boxes inside boxes: each container is laid out by itself and is then one box of the
// container around it. Lanes of a container stand side by side.

import dagre from "@dagrejs/dagre";
import type { Arrow, Box } from "../api";

export const NODE_WIDTH = 216;
export const NODE_HEIGHT = 56;
export const END_WIDTH = 76;
export const END_HEIGHT = 28;
const PAD = 14;
const RANK_GAP = 30;
const NODE_GAP = 26;
const LABEL_CHAR = 6.4;

export interface Point {
  x: number;
  y: number;
}

export interface Placed {
  box: Box;
  x: number; // in its container
  y: number;
  width: number;
  height: number;
  container: boolean;
}

export interface Routed {
  arrow: Arrow;
  points: Point[] | null; // on the whole canvas; null where an arrow crosses containers
  label: Point | null;
}

export interface Layout {
  nodes: Placed[]; // containers before what is in them
  arrows: Routed[];
  width: number;
  height: number;
}

/** Heights of what a box shows beside its two lines: the head of a container, a line of an error. */
export type Extra = (box: Box) => number;

interface Inner {
  width: number;
  height: number;
}

export function layout(
  boxes: Box[],
  arrows: Arrow[],
  closed: ReadonlySet<string>,
  extra: Extra,
): Layout {
  const byId = new Map(boxes.map((box) => [box.id, box]));
  const below = new Map<string, Box[]>();
  for (const box of boxes) {
    const group = below.get(box.parent);
    if (group === undefined) below.set(box.parent, [box]);
    else group.push(box);
  }
  const isOpen = (box: Box) => below.has(box.id) && !closed.has(box.id);
  const chain = (id: string): string[] => {
    const found = [id];
    for (let at = byId.get(id)?.parent ?? ""; at !== ""; at = byId.get(at)?.parent ?? "") {
      found.unshift(at);
    }
    return found;
  };
  // what stands for a box where a container around it is closed
  const visible = (id: string): string => {
    const around = chain(id);
    return around.find((at) => at !== id && closed.has(at)) ?? id;
  };

  const nodes: Placed[] = [];
  const places = new Map<string, Placed>();
  const routes = new Map<string, { points: Point[]; label: Point | null; container: string }>();
  const lifted = lift(arrows, byId, chain, visible);

  const lay = (container: string): Inner => {
    const inside = below.get(container) ?? [];
    const lanes = new Map<string, Box[]>();
    for (const box of inside) {
      const group = lanes.get(box.lane);
      if (group === undefined) lanes.set(box.lane, [box]);
      else group.push(box);
    }
    let x = PAD;
    let height = 0;
    const top = container === "" ? PAD : (byId.get(container) ? extraOf(container) : 0) + PAD;
    for (const lane of lanes.values()) {
      const size = layLane(container, lane, x, top);
      x += size.width + NODE_GAP;
      height = Math.max(height, size.height);
    }
    return { width: x - NODE_GAP + PAD, height: top + height + PAD };
  };
  const extraOf = (id: string): number => {
    const box = byId.get(id);
    return box === undefined ? 0 : NODE_HEIGHT + extra(box);
  };

  const layLane = (container: string, lane: Box[], left: number, top: number): Inner => {
    const graph = new dagre.graphlib.Graph({ multigraph: true });
    graph.setGraph({ rankdir: "TB", nodesep: NODE_GAP, ranksep: RANK_GAP, marginx: 0, marginy: 0 });
    graph.setDefaultEdgeLabel(() => ({}));
    const ids = new Set(lane.map((box) => box.id));
    for (const box of lane) {
      const end = box.look === "end" || box.look === "fail";
      let size = {
        width: end ? END_WIDTH : NODE_WIDTH,
        height: end ? END_HEIGHT : extraOf(box.id),
      };
      if (isOpen(box)) {
        const inner = lay(box.id);
        size = { width: Math.max(inner.width, NODE_WIDTH + 2 * PAD), height: inner.height };
      }
      graph.setNode(box.id, { ...size });
    }
    for (const { arrow, source, target } of lifted) {
      if (!ids.has(source) || !ids.has(target) || source === target) continue;
      const label = arrow.label ? { width: arrow.label.length * LABEL_CHAR + 12, height: 16 } : {};
      graph.setEdge(source, target, { labelpos: "c", ...label }, arrow.id);
    }
    dagre.layout(graph);
    for (const box of lane) {
      const at = graph.node(box.id);
      const placed: Placed = {
        box,
        x: left + at.x - at.width / 2,
        y: top + at.y - at.height / 2,
        width: at.width,
        height: at.height,
        container: isOpen(box),
      };
      places.set(box.id, placed);
    }
    for (const edge of graph.edges()) {
      const route = graph.edge(edge);
      const move = (point: Point): Point => ({ x: left + point.x, y: top + point.y });
      routes.set(edge.name ?? "", {
        points: (route.points ?? []).map(move),
        label: route.x === undefined ? null : move({ x: route.x, y: route.y ?? 0 }),
        container,
      });
    }
    const { width = 0, height = 0 } = graph.graph();
    return { width, height };
  };

  const whole = lay("");
  // containers first: a node must be known before those in it
  const order = (parent: string) => {
    for (const box of below.get(parent) ?? []) {
      const placed = places.get(box.id);
      if (placed === undefined) continue;
      nodes.push(placed);
      if (placed.container) order(box.id);
    }
  };
  order("");

  const origin = (container: string): Point => {
    const sum = { x: 0, y: 0 };
    for (let at = container; at !== ""; at = byId.get(at)?.parent ?? "") {
      const placed = places.get(at);
      sum.x += placed?.x ?? 0;
      sum.y += placed?.y ?? 0;
    }
    return sum;
  };
  const routed: Routed[] = [];
  for (const { arrow, source, target, whole: direct } of lifted) {
    if (source === target) continue;
    const route = routes.get(arrow.id);
    if (route === undefined || !direct) {
      routed.push({
        arrow: { ...arrow, source: visible(arrow.source), target: visible(arrow.target) },
        points: null,
        label: null,
      });
      continue;
    }
    const by = origin(route.container);
    const move = (point: Point): Point => ({ x: point.x + by.x, y: point.y + by.y });
    routed.push({
      arrow: { ...arrow, source, target },
      points: route.points.map(move),
      label: route.label && move(route.label),
    });
  }
  return { nodes, arrows: routed, width: whole.width, height: whole.height };
}

interface Lifted {
  arrow: Arrow;
  source: string;
  target: string;
  whole: boolean; // both ends stand in the same container
}

/** Arrows between boxes of one container: an end that stands deeper is lifted to the box around. */
function lift(
  arrows: Arrow[],
  byId: Map<string, Box>,
  chain: (id: string) => string[],
  visible: (id: string) => string,
): Lifted[] {
  const seen = new Set<string>();
  const found: Lifted[] = [];
  for (const arrow of arrows) {
    if (!byId.has(arrow.source) || !byId.has(arrow.target)) continue;
    const source = visible(arrow.source);
    const target = visible(arrow.target);
    if (source === target) continue;
    const a = chain(source);
    const b = chain(target);
    let same = 0;
    while (same < a.length - 1 && same < b.length - 1 && a[same] === b[same]) same += 1;
    const from = a[same] ?? source;
    const to = b[same] ?? target;
    const key = `${source}\n${target}\n${arrow.label}`;
    if (seen.has(key)) continue; // of a closed container, one of those that look the same
    seen.add(key);
    found.push({ arrow, source: from, target: to, whole: from === source && to === target });
  }
  return found;
}
