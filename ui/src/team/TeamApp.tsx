import {
  type ComponentType,
  type ReactNode,
  useCallback,
  useEffect,
  useMemo,
  useRef,
  useState,
} from "react";
import type { LoggedOut, Me, Membership, Source, Standing } from "../api";
import { Refusal } from "../api/refusal";
import { KEYS } from "../compare/Differences";
import { useAddress } from "../lib/router";
import type { Goal } from "../model/palette";
import { type Key, Keys } from "../parts/Keys";
import { AccountPage } from "./AccountPage";
import { call, SIGNED_OUT, TeamSource } from "./api";
import { CostsPage } from "./CostsPage";
import { removeDrafts } from "./drafts";
import { EditorPage } from "./EditorPage";
import { InstancePage } from "./InstancePage";
import { LoginPage } from "./LoginPage";
import { AuditPage, HostsPage } from "./LookPages";
import { MapPage } from "./MapPage";
import { KeysPage, MembersPage, SettingsPage } from "./MembersPage";
import { Palette } from "./Palette";
import { PolicyPage } from "./PolicyPage";
import { ProgramPage, ProgramsPage } from "./ProgramsPage";
import { VersionsPage } from "./VersionsPage";

/** The project that the address names: `/projects/NAME/`. */
export function projectOf(path: string): string | null {
  const found = /^\/projects\/([^/]+)\//.exec(path);
  return found?.[1] === undefined ? null : decodeURIComponent(found[1]);
}

type State = { standing: Standing; me: Me | null } | { fault: string } | null;

/** The pages of a server: who is not logged in logs in first; then a project's pages. */
export function TeamApp({
  tools,
  children,
}: {
  tools: ReactNode;
  children: (from: Source) => ReactNode;
}) {
  const [state, setState] = useState<State>(null);
  const [unleft, setUnleft] = useState<Error | null>(null); // why nobody was logged out
  const [{ page }] = useAddress();
  const token = page[0] === "setup" ? (page[1] ?? null) : null;
  const look = useCallback(async () => {
    try {
      const standing = await call<Standing>("GET", "standing");
      const me = await call<Me>("GET", "me").catch((error) => {
        if (error.status === 401) return null;
        throw error;
      });
      setState({ standing, me });
    } catch (error) {
      setState({ fault: (error as Error).message });
    }
  }, []);
  useEffect(() => {
    void look();
    const out = () => setState((old) => (old !== null && "me" in old ? { ...old, me: null } : old));
    window.addEventListener(SIGNED_OUT, out);
    return () => window.removeEventListener(SIGNED_OUT, out);
  }, [look]);
  const name = projectOf(window.location.pathname);
  const me = state !== null && "me" in state ? state.me : null;
  const project = me?.projects.find((one) => one.project === name) ?? null;
  const from = useMemo(
    () => (project === null ? null : new TeamSource(project.project, project.permissions)),
    [project],
  );
  const first = me?.projects[0];
  useEffect(() => {
    if (me !== null && name === null && first !== undefined) {
      window.location.replace(`/projects/${encodeURIComponent(first.project)}/`);
    }
  }, [me, name, first]);

  if (state === null) return <main className="message">Loading…</main>;
  if ("fault" in state) {
    return (
      <main className="message">
        <h1>The server cannot be reached</h1>
        <p role="alert">{state.fault}</p>
        <button type="button" onClick={look}>
          Try again
        </button>
      </main>
    );
  }
  if (me === null) {
    const entered = (found: Me) => {
      if (token !== null || page[0] === "login") window.location.hash = "#/";
      setUnleft(null);
      setState({ standing: { ...state.standing, setup: false }, me: found });
    };
    return (
      <LoginPage
        standing={state.standing}
        token={token}
        refusal={page[0] === "login" ? (page[1] ?? null) : null}
        entered={entered}
        tools={tools}
      />
    );
  }
  const left = async () => {
    let next: string | null = null;
    try {
      next = (await call<LoggedOut>("POST", "logout")).next;
    } catch (error) {
      // whose session has ended already is logged out
      if (!(error instanceof Refusal) || error.status !== 401) {
        setUnleft(error as Error);
        return;
      }
    }
    setUnleft(null);
    removeDrafts();
    if (next !== null) window.location.assign(next);
    else setState({ ...state, me: null });
  };
  return (
    <div className="team">
      <button type="button" className="skip" onClick={skip}>
        Skip the bar
      </button>
      <Bar me={me} project={project} left={left} tools={tools} />
      {unleft !== null && (
        <p className="toast" role="alert">
          Not logged out: {unleft.message}
        </p>
      )}
      {from !== null && <Palette from={from} pages={goals(from)} />}
      {page[0] === "account" ? (
        <AccountPage me={me} left={left} />
      ) : page[0] === "instance" && me.owner ? (
        <InstancePage changed={look} />
      ) : from !== null ? (
        <Page from={from}>{children(from)}</Page>
      ) : (
        <main className="message" aria-busy={name === null && first !== undefined}>
          {name !== null ? (
            <>
              <h1>There is no project {name} for you</h1>
              <p>Choose one above, or ask an admin to add you to it.</p>
            </>
          ) : first === undefined ? (
            <>
              <h1>You are in no project yet</h1>
              <p>Ask an admin of one to add {me.name}.</p>
            </>
          ) : (
            "Loading…"
          )}
        </main>
      )}
    </div>
  );
}

/** To the title of the page, for who goes on by the keyboard: the bar has up to 15 stops. */
function skip(): void {
  const title = document.querySelector<HTMLElement>(".team h1");
  if (title === null) return;
  title.tabIndex = -1;
  title.focus();
}

/** A page of the project: its own, or one of those that every source has. */
function Page({ from, children }: { from: TeamSource; children: ReactNode }) {
  const [{ page }] = useAddress();
  const own = ownPage(from, page);
  if (own === null) return children;
  return (
    <>
      {own}
      <Keys keys={ownKeys(page)} shared={from.shared} />
    </>
  );
}

/** The keys of such a page. */
function ownKeys([name, , second, , fourth]: string[]): Key[] {
  return name === "programs" && second === "diff" && fourth !== undefined ? KEYS : [];
}

/** The page of a project at an address; null for those that every source has. */
function ownPage(from: TeamSource, page: string[]): ReactNode {
  const [name, first, second, third, fourth] = page;
  // beside the programs, of which one can have any name
  if (name === "new-program") return <EditorPage from={from} name={null} />;
  if (name === "programs" && first !== undefined) {
    if (second === "map") return <MapPage key={first} from={from} name={first} />;
    if (second === "edit") return <EditorPage key={first} from={from} name={first} />;
    if (second === "diff" && third !== undefined && fourth !== undefined) {
      const versions: [string, string] = [third, fourth];
      return <VersionsPage key={page.join("/")} from={from} name={first} versions={versions} />;
    }
    return <ProgramPage key={first} from={from} name={first} />;
  }
  const Own = OWN[name ?? ""];
  return Own !== undefined ? <Own from={from} /> : null;
}

const OWN: Record<string, ComponentType<{ from: TeamSource }>> = {
  programs: ProgramsPage,
  policy: PolicyPage,
  costs: CostsPage,
  workers: HostsPage,
  members: MembersPage,
  keys: KeysPage,
  audit: AuditPage,
  settings: SettingsPage,
};

const PLACES: [string, string, string][] = [
  ["Runs", "", "run:read"],
  ["Inbox", "inbox", "step:approve"],
  ["Programs", "programs", "program:read"],
  ["Policy", "policy", "program:read"],
  ["Costs", "costs", "cost:read"],
  ["Workers", "workers", "host:read"],
  ["Members", "members", "member:manage"],
  ["Keys", "keys", "key:manage"],
  ["Audit", "audit", "audit:read"],
  ["Settings", "settings", "program:read"],
];

/** The pages of a project that its palette leads to. */
function goals(from: TeamSource): Goal[] {
  return PLACES.filter(([, , needs]) => from.may(needs)).map(([name, place]) => ({
    name,
    told: "page",
    address: `#/${place}`,
  }));
}

/** The place that a page belongs to which has none of its own. */
const PLACE_OF: Record<string, string> = {
  run: "",
  compare: "",
  fork: "",
  "new-program": "programs",
};

function Bar({
  me,
  project,
  left,
  tools,
}: {
  me: Me;
  project: Membership | null;
  left: () => Promise<void>;
  tools: ReactNode;
}) {
  const [{ page }] = useAddress();
  const here = PLACE_OF[page[0] ?? ""] ?? page[0] ?? "";
  const bar = useRef<HTMLElement>(null);
  useEffect(() => {
    // on a phone it is wider than the screen
    const link = bar.current?.querySelector(`a[href="#/${CSS.escape(here)}"]`);
    link?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [here]);
  return (
    <nav ref={bar} className="team-bar" aria-label="Pages">
      <select
        aria-label="Project"
        value={project?.project ?? ""}
        onChange={(event) => {
          window.location.href = `/projects/${encodeURIComponent(event.target.value)}/`;
        }}
      >
        {project === null && <option value="">choose…</option>}
        {me.projects.map((one) => (
          <option key={one.project}>{one.project}</option>
        ))}
      </select>
      {project !== null &&
        PLACES.filter(([, , needs]) => project.permissions.includes(needs)).map(([name, place]) => (
          <a key={name} href={`#/${place}`} aria-current={here === place ? "page" : undefined}>
            {name}
          </a>
        ))}
      {me.owner && (
        <a href="#/instance" aria-current={here === "instance" ? "page" : undefined}>
          Instance
        </a>
      )}
      <span className="grow" />
      <a
        href="#/account"
        aria-current={here === "account" ? "page" : undefined}
        title={project?.role ?? (me.owner ? "owner" : "")}
      >
        {me.name}
      </a>
      {tools}
      <button type="button" className="quiet" onClick={left}>
        Log out
      </button>
    </nav>
  );
}
