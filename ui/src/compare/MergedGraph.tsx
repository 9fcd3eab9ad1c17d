import {
  type Edge,
  Handle,
  type Node,
  type NodeProps,
  Position,
  ReactFlowProvider,
} from "@xyflow/react";
import { type ReactNode, useMemo } from "react";
import type { Box } from "../api";
import type { Merged, Side } from "../model/compare";
import { layout } from "../model/layout";
import { LookIcon } from "../parts/Icon";
import { Plain } from "../parts/Text";
import { type ArrowData, ArrowHeads, drawnArrow, EDGE_TYPES } from "../run/Arrows";
import { placedNode, Viewport } from "../run/Viewport";
import { SideMark } from "./Differences";

interface MergedData extends Record<string, unknown> {
  box: Box;
  container: boolean;
  side: Side;
  selected: boolean;
  line: ReactNode;
  select: () => void;
}

/** Two runs or two programs on one graph: what both have once, and whose the rest is. */
export function MergedGraph({
  label,
  merged,
  selected,
  select,
  line,
}: {
  label: string;
  merged: Merged;
  selected: ReadonlySet<string>; // boxes
  select: (box: Box) => void;
  line: (box: Box) => ReactNode; // the second line of a box
}) {
  const placed = useMemo(() => layout(merged.boxes, merged.arrows, new Set(), () => 0), [merged]);
  const nodes: Node<MergedData>[] = placed.nodes.map((at) => ({
    ...placedNode(at),
    type: "merged",
    data: {
      box: at.box,
      container: at.container,
      side: merged.sides.get(at.box.id) ?? "none",
      selected: selected.has(at.box.id),
      line: line(at.box),
      select: () => select(at.box),
    },
  }));
  const edges: Edge<ArrowData>[] = placed.arrows.map((routed) => {
    const side = merged.taken.get(routed.arrow.id) ?? "none";
    const name = side === "a" ? "A" : side === "b" ? "B" : "";
    return drawnArrow(routed, side !== "none", {
      label: [routed.arrow.label, name].filter(Boolean).join(" · "),
      side: name === "" ? "" : `side-${side}`,
    });
  });
  const [first] = selected;
  return (
    <div className="compare-graph">
      <ArrowHeads />
      <ReactFlowProvider>
        <Viewport
          label={label}
          nodes={nodes}
          edges={edges}
          nodeTypes={MERGED_TYPES}
          edgeTypes={EDGE_TYPES}
          focus={first ?? merged.diverges}
          width={placed.width}
          height={placed.height}
        />
      </ReactFlowProvider>
    </div>
  );
}

function MergedBox({ data }: NodeProps<Node<MergedData>>) {
  const { box, side, selected, line, container } = data;
  const end = box.look === "end" || box.look === "fail";
  return (
    <div
      className={`${container ? "frame" : end ? "end" : "box"} merged side-${side} ${selected ? "selected" : ""}`}
    >
      <Handle type="target" position={Position.Top} />
      {end ? (
        <>
          {box.step}
          {(side === "a" || side === "b") && <SideMark side={side} />}
        </>
      ) : (
        <button type="button" className="box-main" onClick={data.select}>
          <span className="box-top">
            <LookIcon look={box.look} type={box.type} />
            <span className="box-name">
              <Plain text={box.step} />
            </span>
            <SideMark side={side} />
          </span>
          <span className="box-line">{line}</span>
        </button>
      )}
      <Handle type="source" position={Position.Bottom} />
    </div>
  );
}

const MERGED_TYPES = { merged: MergedBox };
