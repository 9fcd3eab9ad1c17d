// Starts `nano-vm lsp` for YAML and JSON, and shows the graph of a program beside its text.

import * as vscode from "vscode";
import { LanguageClient, type ServerOptions } from "vscode-languageclient/node";

import { failurePage, graphPage } from "./page";

let client: LanguageClient | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  context.subscriptions.push(
    vscode.commands.registerCommand("nanoVm.showGraph", showGraph),
    vscode.commands.registerCommand("nanoVm.restart", restart),
    // tools are imported only where the workspace is trusted
    vscode.workspace.onDidGrantWorkspaceTrust(restart),
  );
  await start();
}

export async function deactivate(): Promise<void> {
  await client?.stop();
  client = undefined;
}

async function start(): Promise<void> {
  const given = vscode.workspace.getConfiguration("nanoVm").get<string[]>("command") ?? [];
  const [command, ...args] = given.length > 0 ? given : ["nano-vm", "lsp"];
  if (!vscode.workspace.isTrusted) {
    args.push("--no-tools");
  }
  const server: ServerOptions = { command: command as string, args };
  client = new LanguageClient("nanoVm", "llm-nano-vm", server, {
    documentSelector: [
      { scheme: "file", language: "yaml" },
      { scheme: "file", language: "json" },
      { scheme: "untitled", language: "yaml" },
    ],
  });
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    void vscode.window.showWarningMessage(
      `nano-vm: cannot start '${[command, ...args].join(" ")}' (${String(error)}); ` +
        "pip install 'llm-nano-vm[lsp]', or set nanoVm.command",
    );
  }
}

async function restart(): Promise<void> {
  // one that never started, or has ended by itself, cannot be stopped
  await client?.stop().catch(() => undefined);
  await start();
}

async function showGraph(): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  if (document === undefined || client === undefined) {
    return;
  }
  const title = vscode.workspace.asRelativePath(document.uri);
  const panel = vscode.window.createWebviewPanel(
    "nanoVmGraph",
    `Graph of ${title}`,
    vscode.ViewColumn.Beside,
    { enableScripts: false, localResourceRoots: [] },
  );
  const shown = document.uri.toString();
  const draw = async (): Promise<void> => {
    try {
      const drawn = await client?.sendRequest<{ text: string }>("workspace/executeCommand", {
        command: "nano-vm.graph",
        arguments: [shown, "svg"],
      });
      panel.webview.html = graphPage(title, drawn?.text ?? "");
    } catch (error) {
      panel.webview.html = failurePage(title, error instanceof Error ? error.message : String(error));
    }
  };
  const saved = vscode.workspace.onDidSaveTextDocument((changed) => {
    if (changed.uri.toString() === shown) {
      void draw();
    }
  });
  panel.onDidDispose(() => saved.dispose());
  await draw();
}
