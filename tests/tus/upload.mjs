// Uploads one file with tus-js-client as it comes from npm, and prints what became of it.
//
// Options are one JSON object on the command line: path, endpoint or uploadUrl, headers, metadata,
// chunkSize, uploadDataDuringCreation, retryDelays, abortAfterBytes (then the upload is terminated),
// overridePatchMethod.

import { createReadStream, statSync } from "node:fs";
import { createRequire } from "node:module";

// npm's packages lie in the working directory.
const { DetailedError, Upload } = createRequire(`${process.cwd()}/`)("tus-js-client");

const options = JSON.parse(process.argv[2]);
const size = statSync(options.path).size;
let requests = 0;

function tell(result) {
  process.stdout.write(`${JSON.stringify({ ...result, url: upload.url, requests })}\n`);
}

const upload = new Upload(createReadStream(options.path), {
  endpoint: options.endpoint,
  uploadUrl: options.uploadUrl,
  headers: options.headers,
  metadata: options.metadata,
  uploadSize: size,
  chunkSize: options.chunkSize ?? Infinity,
  retryDelays: options.retryDelays,
  uploadDataDuringCreation: options.uploadDataDuringCreation ?? false,
  overridePatchMethod: options.overridePatchMethod ?? false,
  onBeforeRequest() {
    requests += 1;
  },
  onChunkComplete(_, accepted) {
    if (options.abortAfterBytes !== undefined && accepted >= options.abortAfterBytes) {
      upload.abort(true).then(
        () => tell({ outcome: "aborted" }),
        (error) => tell({ outcome: "error", message: String(error) }),
      );
    }
  },
  onSuccess() {
    tell({ outcome: "success" });
  },
  onError(error) {
    const status = error instanceof DetailedError ? error.originalResponse?.getStatus() : undefined;
    tell({ outcome: "error", message: error.message, status });
  },
});
upload.start();
