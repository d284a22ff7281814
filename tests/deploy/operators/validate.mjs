// Reads a JSON list of objects from stdin; prints one line for each thing that is wrong with them.
//
// The packages are generated from the operators' own Go types. Their validators take fields that
// nobody knows; the TypeScript compiler, given the same types, does not.
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const packages = {
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
  "cert-manager.io/v1": "@kubernetes-models/cert-manager/cert-manager.io/v1",
};

async function validate(object) {
  const models = await import(packages[object.apiVersion]);
  try {
    new models[object.kind](object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}

// A program that exists in memory only, and never runs.
function compile(objects) {
  const lines = objects.map(
    (object, at) => `import { I${object.kind} as T${at} } from "${packages[object.apiVersion]}/${object.kind}";
export const o${at}: T${at} = ${JSON.stringify(object)};`,
  );
  const name = fileURLToPath(new URL("rendered.mts", import.meta.url));
  const options = {
    module: ts.ModuleKind.NodeNext,
    noEmit: true,
    skipLibCheck: true,
    strict: true,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  const source = lines.join("\n");
  host.fileExists = (file) => file === name || fileExists(file);
  host.readFile = (file) => (file === name ? source : readFile(file));
  host.getSourceFile = (file, version) =>
    file === name ? ts.createSourceFile(file, source, version) : getSourceFile(file, version);
  for (const found of ts.getPreEmitDiagnostics(ts.createProgram([name], options, host))) {
    console.log(ts.flattenDiagnosticMessageText(found.messageText, " "));
  }
}

const objects = JSON.parse(await text(process.stdin));
for (const object of objects) {
  await validate(object);
}
compile(objects);
