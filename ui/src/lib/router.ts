// The address after `#`: a page and its parameters, so that a link shows what its sender saw.

import { useCallback, useSyncExternalStore } from "react";

export interface Address {
  page: string[];
  query: URLSearchParams;
}

export function parseAddress(hash: string): Address {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return {
    page: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: new URLSearchParams(query),
  };
}

export function formatAddress(page: string[], query: URLSearchParams): string {
  const text = query.toString();
  return `#/${page.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

function subscribe(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  return () => window.removeEventListener("hashchange", changed);
}

/** The address, and a function that changes its parameters without a step in the history. */
export function useAddress(): [Address, (changes: Record<string, string | null>) => void] {
  const hash = useSyncExternalStore(subscribe, () => window.location.hash);
  const change = useCallback((changes: Record<string, string | null>) => {
    const { page, query } = parseAddress(window.location.hash);
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) query.delete(name);
      else query.set(name, value);
    }
    const next = formatAddress(page, query);
    if (next === window.location.hash) return;
    window.history.replaceState(null, "", next);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  }, []);
  return [parseAddress(hash), change];
}
