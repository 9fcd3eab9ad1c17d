import {
  type Edge,
  Handle,
  type Node,
  type NodeProps,
  Position,
  ReactFlowProvider,
} from "@xyflow/react";
import { useEffect, useMemo } from "react";
import type { Arrow, Box, BoxTraffic, PathMap } from "../api";
import { cost, duration, moment, plural } from "../lib/format";
import { layout } from "../model/layout";
import { LookIcon } from "../parts/Icon";
import { StateChip } from "../parts/State";
import { Plain } from "../parts/Text";
import { type ArrowData, ArrowHeads, drawnArrow, EDGE_TYPES } from "../run/Arrows";
import { placedNode, Viewport } from "../run/Viewport";
import type { TeamSource } from "./api";
import { Cells, Faults, useAsked } from "./parts";

/** What the last runs of a program did, on its graph: how many took each way, and which none took. */
export function MapPage({ from, name }: { from: TeamSource; name: string }) {
  const [found, fault] = useAsked<PathMap>(from, `programs/${encodeURIComponent(name)}/map`);
  useEffect(() => {
    document.title = `Path map of ${name}`;
  }, [name]);
  return (
    <div className="map-page">
      <header className="top">
        <div className="title">
          <a href={`#/programs/${encodeURIComponent(name)}`}>
            <Plain text={name} />
          </a>
          <h1>Path map</h1>
          {found !== null && (
            <span className="facts">
              <span>version {found.version}</span>
              <span>the last {plural(found.runs, "run")}</span>
              {found.since !== null && <span>since {moment(found.since)}</span>}
            </span>
          )}
        </div>
        <Faults error={fault} />
      </header>
      {found !== null && (
        <>
          <main className="map-graph">
            <ArrowHeads />
            <ReactFlowProvider>
              <MapGraph found={found} />
            </ReactFlowProvider>
          </main>
          <aside className="map-said" aria-label="In numbers">
            <Never found={found} />
            <Ways found={found} />
            <Steps found={found} />
          </aside>
        </>
      )}
    </div>
  );
}

interface MapData extends Record<string, unknown> {
  box: Box;
  traffic: BoxTraffic | undefined;
  container: boolean;
}

const THIN = 1.5;
const THICK = 6; // of a way that all runs take

function MapGraph({ found }: { found: PathMap }) {
  const { chart } = found;
  const placed = useMemo(() => layout(chart.boxes, chart.arrows, new Set(), () => 0), [chart]);
  const boxes = new Map(found.boxes.map((one) => [one.id, one]));
  const arrows = new Map(found.arrows.map((one) => [one.id, one]));
  const nodes: Node<MapData>[] = placed.nodes.map((at) => ({
    ...placedNode(at),
    type: "map",
    zIndex: at.container ? 0 : 2,
    data: { box: at.box, traffic: boxes.get(at.box.id), container: at.container },
  }));
  const edges: Edge<ArrowData>[] = placed.arrows.map((routed) => {
    const share = arrows.get(routed.arrow.id)?.share ?? 0;
    return drawnArrow(routed, share > 0, {
      label: [routed.arrow.label, percent(share)].filter(Boolean).join(" · "),
      width: THIN + (THICK - THIN) * share,
    });
  });
  return (
    <Viewport
      label="The program with how often each way was taken"
      nodes={nodes}
      edges={edges}
      nodeTypes={MAP_TYPES}
      edgeTypes={EDGE_TYPES}
      focus={null}
      width={placed.width}
      height={placed.height}
    />
  );
}

function percent(share: number): string {
  if (share > 0 && share < 0.01) return "< 1 %";
  return `${Math.round(share * 100)} %`;
}

function MapBox({ data }: NodeProps<Node<MapData>>) {
  const { box, traffic, container } = data;
  const end = box.look === "end" || box.look === "fail";
  const runs = traffic?.runs ?? 0;
  return (
    <div
      className={`${container ? "frame" : end ? "end" : "box"} ${end || runs > 0 ? "" : "state-untaken"}`}
    >
      <Handle type="target" position={Position.Top} />
      {end ? (
        box.step
      ) : (
        <div className="box-main">
          <span className="box-top">
            <LookIcon look={box.look} type={box.type} />
            <span className="box-name">
              <Plain text={box.step} />
            </span>
          </span>
          <span className="box-line">
            {runs === 0 || traffic === undefined
              ? "never reached"
              : [plural(runs, "run"), within(traffic.p95_ms), spent(traffic.cost_usd)]
                  .filter(Boolean)
                  .join(" · ")}
          </span>
        </div>
      )}
      <Handle type="source" position={Position.Bottom} />
    </div>
  );
}

const MAP_TYPES = { map: MapBox };

function within(ms: number | null): string {
  return ms === null ? "" : `p95 ${duration(ms)}`;
}

function spent(usd: string | null): string {
  return usd !== null && Number(usd) === 0 ? "" : cost(usd);
}

function wayOf(arrow: Arrow | undefined): string {
  if (arrow === undefined) return "";
  const label = arrow.label === "" ? "" : ` (${arrow.label})`;
  return `${arrow.source} → ${arrow.target}${label}`;
}

/** The ways that somebody wrote for a case, and no run has tried. */
function Never({ found }: { found: PathMap }) {
  const arrows = new Map(found.chart.arrows.map((one) => [one.id, one]));
  return (
    <section>
      <h2>Ways that no run took</h2>
      {found.runs === 0 ? (
        <p className="muted">No run of this version can be read yet.</p>
      ) : found.never.length === 0 ? (
        <p className="muted">Each way was taken at least once.</p>
      ) : (
        <ul className="editor-list">
          {found.never.map((id) => (
            <li key={id}>
              <StateChip state="untaken" text="never" /> <Plain text={wayOf(arrows.get(id))} />
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Ways({ found }: { found: PathMap }) {
  const arrows = new Map(found.chart.arrows.map((one) => [one.id, one]));
  const taken = found.arrows.filter((one) => one.runs > 0).sort((a, b) => b.share - a.share);
  if (taken.length === 0) return null;
  return (
    <section>
      <h2>Runs by the way that they took</h2>
      <Cells
        heads={[
          "Way",
          "Share",
          ["p95", "95 of 100 of these runs ended within"],
          ["Cost", "of a run, in the mean"],
        ]}
      >
        {taken.map((one) => (
          <tr key={one.id}>
            <td>
              <Plain text={wayOf(arrows.get(one.id))} />
            </td>
            <td title={plural(one.runs, "run")}>{percent(one.share)}</td>
            <td>{one.p95_ms === null ? "" : duration(one.p95_ms)}</td>
            <td title={one.cost_usd ?? undefined}>{cost(one.cost_usd)}</td>
          </tr>
        ))}
      </Cells>
    </section>
  );
}

function Steps({ found }: { found: PathMap }) {
  const steps = found.boxes.filter((one) => one.times > 0);
  if (steps.length === 0) return null;
  return (
    <section>
      <h2>Steps</h2>
      <Cells heads={["Step", "Runs", "Times", "p95", "Cost"]}>
        {steps.map((one) => (
          <tr key={one.id}>
            <td>
              <Plain text={one.id} />
            </td>
            <td>{one.runs}</td>
            <td>{one.times}</td>
            <td>{one.p95_ms === null ? "" : duration(one.p95_ms)}</td>
            <td title={one.cost_usd ?? undefined}>{cost(one.cost_usd)}</td>
          </tr>
        ))}
      </Cells>
    </section>
  );
}
