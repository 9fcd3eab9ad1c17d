import {
  BaseEdge,
  type Edge,
  EdgeLabelRenderer,
  type EdgeProps,
  getBezierPath,
} from "@xyflow/react";
import { memo } from "react";
import type { Point, Routed } from "../model/layout";
import { Plain } from "../parts/Text";

/** What an arrow shows beside its way. */
interface ArrowLook {
  label?: string; // in place of its own
  count?: number;
  active?: boolean;
  side?: string;
  width?: number;
}

export interface ArrowData extends ArrowLook, Record<string, unknown> {
  routed: Routed;
  taken: boolean;
}

/** An arrow of a graph that is looked at; those that were taken stand above the others. */
export function drawnArrow(routed: Routed, taken: boolean, look: ArrowLook): Edge<ArrowData> {
  const { id, source, target } = routed.arrow;
  return {
    id,
    source,
    target,
    type: "arrow",
    zIndex: taken ? 2 : 1,
    markerEnd: taken ? "arrow-taken" : "arrow-untaken",
    data: { routed, taken, ...look },
  };
}

const ArrowView = memo(function ArrowView(props: EdgeProps<Edge<ArrowData>>) {
  const { data, markerEnd } = props;
  if (data === undefined) return null;
  const { routed, taken, label: written, count = 0, active = false } = data;
  const [bezier, x, y] = getBezierPath(props);
  const path = routed.points === null ? bezier : rounded(routed.points);
  const label = routed.points === null ? { x, y } : routed.label;
  const way = routed.arrow.way;
  const text = (written ?? routed.arrow.label) + (count > 1 ? ` ×${count}` : "");
  return (
    <>
      <BaseEdge
        path={path}
        {...(markerEnd === undefined ? {} : { markerEnd })}
        {...(data.width === undefined ? {} : { style: { strokeWidth: data.width } })}
        className={`arrow way-${way} ${taken ? "taken" : "untaken"} ${active ? "active" : ""} ${data.side ?? ""}`}
      />
      {text.trim() !== "" && label !== null && (
        <EdgeLabelRenderer>
          <div
            className={`arrow-label ${taken ? "taken" : "untaken"}`}
            style={{ transform: `translate(-50%, -50%) translate(${label.x}px, ${label.y}px)` }}
          >
            <Plain text={text.trim()} />
          </div>
        </EdgeLabelRenderer>
      )}
    </>
  );
});

/** A line through the points with soft corners. */
function rounded(points: Point[]): string {
  const [first, ...rest] = points;
  if (first === undefined) return "";
  let path = `M${first.x},${first.y}`;
  rest.forEach((point, i) => {
    const next = rest[i + 1];
    if (next === undefined) path += ` L${point.x},${point.y}`;
    else path += ` Q${point.x},${point.y} ${(point.x + next.x) / 2},${(point.y + next.y) / 2}`;
  });
  return path;
}

export const EDGE_TYPES = { arrow: ArrowView };

/** Heads of arrows, once for the page. */
export function ArrowHeads() {
  return (
    <svg className="defs" aria-hidden="true">
      <defs>
        {["taken", "untaken"].map((name) => (
          <marker
            key={name}
            id={`arrow-${name}`}
            viewBox="0 0 10 10"
            refX="9"
            refY="5"
            markerWidth="9"
            markerHeight="9"
            markerUnits="userSpaceOnUse"
            orient="auto-start-reverse"
          >
            <path d="M0,0 L10,5 L0,10 z" className={`arrow-head ${name}`} />
          </marker>
        ))}
      </defs>
    </svg>
  );
}
