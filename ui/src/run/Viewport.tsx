import {
  Background,
  Controls,
  type Edge,
  type EdgeTypes,
  type Node,
  type NodeTypes,
  ReactFlow,
  useReactFlow,
  useStore,
} from "@xyflow/react";
import { useEffect, useRef } from "react";
import type { Placed } from "../model/layout";

/** A graph that is looked at and not changed: of a run, or of two. */
export function Viewport<N extends Node, E extends Edge>({
  label,
  nodes,
  edges,
  nodeTypes,
  edgeTypes,
  focus,
  width,
  height,
}: {
  label: string;
  nodes: N[];
  edges: E[];
  nodeTypes: NodeTypes;
  edgeTypes: EdgeTypes;
  focus: string | null;
  width: number;
  height: number;
}) {
  return (
    <ReactFlow
      nodes={nodes}
      edges={edges}
      nodeTypes={nodeTypes}
      edgeTypes={edgeTypes}
      minZoom={0.1}
      maxZoom={1.6}
      nodesDraggable={false}
      nodesConnectable={false}
      edgesFocusable={false}
      elementsSelectable={false}
      panOnScroll
      aria-label={label}
    >
      <Background gap={20} size={1} color="var(--dots)" />
      <Controls showInteractive={false} position="bottom-left" />
      <Sight focus={focus} width={width} height={height} />
    </ReactFlow>
  );
}

/** Where a box stands on the canvas; what it is, is said by its type and data. */
export function placedNode(at: Placed) {
  return {
    id: at.box.id,
    position: { x: at.x, y: at.y },
    width: at.width,
    height: at.height,
    draggable: false,
    connectable: false,
    selectable: false,
    focusable: false,
    ...(at.box.parent === "" ? {} : { parentId: at.box.parent }),
  };
}

const EDGE = 24; // between the graph and the window
const READABLE = 0.7; // zoom, below which the second line of a box cannot be read

/** Where the graph is looked at: the whole, or what wants to be seen if that cannot be read. What
 * is selected is brought into sight, and nothing moves if it is there already.
 */
function Sight({ focus, width, height }: { focus: string | null; width: number; height: number }) {
  const flow = useReactFlow();
  const box = useStore((state) => state.domNode);
  const first = useRef(true);
  useEffect(() => {
    const frame = requestAnimationFrame(() => {
      const view = box?.getBoundingClientRect();
      if (view === undefined || view.width === 0) return;
      const whole = Math.min(view.width / (width + 40), view.height / (height + 40));
      const node = focus === null ? undefined : flow.getInternalNode(focus);
      const at = node?.internals.positionAbsolute;
      if (first.current) {
        first.current = false;
        if (whole >= READABLE) {
          void flow.fitView({ padding: 0.04, maxZoom: 1 });
          return;
        }
        const zoom = Math.min(1, Math.max(READABLE + 0.1, view.width / (width + 40)), 0.9);
        if (at === undefined) {
          void flow.setViewport({ x: (view.width - width * zoom) / 2, y: 12, zoom });
          return;
        }
        void center(zoom);
        return;
      }
      if (at === undefined || node === undefined) return;
      const { x, y, zoom } = flow.getViewport();
      const left = at.x * zoom + x;
      const top = at.y * zoom + y;
      const right = left + (node.measured.width ?? 0) * zoom;
      const bottom = top + (node.measured.height ?? 0) * zoom;
      const seen = left >= 0 && top >= 0 && right <= view.width && bottom <= view.height;
      if (!seen) void center(zoom);

      function center(zoom: number) {
        if (at === undefined || view === undefined) return;
        const middle = at.x + (node?.measured.width ?? 0) / 2;
        const line = at.y + (node?.measured.height ?? 0) / 2;
        const x = within(view.width / 2 - middle * zoom, view.width, width * zoom);
        const y = within(view.height / 2 - line * zoom, view.height, height * zoom);
        return flow.setViewport({ x, y, zoom });
      }
    });
    return () => cancelAnimationFrame(frame);
  }, [flow, box, focus, width, height]);
  return null;
}

/** A place of the graph at which its ends do not leave the window half empty. */
function within(at: number, window: number, graph: number): number {
  if (graph + 2 * EDGE <= window) return (window - graph) / 2;
  return Math.min(EDGE, Math.max(window - graph - EDGE, at));
}
