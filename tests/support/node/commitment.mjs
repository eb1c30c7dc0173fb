// Stores files, asks for storage commitment on the same association, and prints what came of it as one JSON document.
// The one argument is a JSON object; tests/support/dcmjs.py says what is in it.

import { createRequire } from 'node:module';

const order = JSON.parse(process.argv[2]);
const require = createRequire(`${order.modules}/`);
const { Client, Dataset, Scp, Server, constants, log, requests, responses } = require('dcmjs-dimse');
const { PresentationContextResult, Status, TransferSyntax } = constants;

const STORAGE_COMMITMENT = '1.2.840.10008.1.20.1';
const WELL_KNOWN_INSTANCE = '1.2.840.10008.1.20.1.1';
const REQUEST_STORAGE_COMMITMENT = 1;

log.setLevel(process.env.DCMJS_LOG ?? 'silent', false); // standard output has the document and nothing else

const outcome = { stored: [], action: null, reports: [], problems: [] };

const items = (sequence) => Array.from(sequence ?? []);

function take(request, association) {
  const report = request.getDataset();
  const elements = report === undefined ? {} : report.getElements();
  outcome.reports.push({
    association,
    event_type: request.getEventTypeId(),
    transaction_uid: elements.TransactionUID,
    committed: items(elements.ReferencedSOPSequence).map((item) => item.ReferencedSOPInstanceUID),
    failed: items(elements.FailedSOPSequence).map((item) => [item.ReferencedSOPInstanceUID, item.FailureReason]),
  });
  const response = responses.NEventReportResponse.fromRequest(request);
  response.setStatus(Status.Success);
  return response;
}

class Listener extends Scp {
  constructor(socket, options) {
    super(socket, options);
    this.on('close', finish);
  }

  associationRequested(association) {
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      const syntax = [TransferSyntax.ExplicitVRLittleEndian, TransferSyntax.ImplicitVRLittleEndian].find((one) =>
        context.hasTransferSyntaxUid(one),
      );
      if (context.getAbstractSyntaxUid() === STORAGE_COMMITMENT && syntax !== undefined) {
        context.setResult(PresentationContextResult.Accept, syntax);
      } else {
        context.setResult(PresentationContextResult.RejectAbstractSyntaxNotSupported);
      }
    }
    this.sendAssociationAccept();
  }

  nEventReportRequest(request, callback) {
    callback(take(request, 'new'));
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

const server = new Server(Listener);
server.on('networkError', (error) => outcome.problems.push(`server: ${error}`));

let released = false; // the association of the request

// Called as each connection closes: over once the report is in and nothing is open, so that no release is cut off.
function finish() {
  if (released && outcome.reports.length > 0) {
    server.close();
    console.log(JSON.stringify(outcome));
    setImmediate(() => process.exit(0));
  }
}

function ask() {
  const client = new Client();
  for (const file of order.files) {
    const request = new requests.CStoreRequest(file);
    request.on('response', (response) => outcome.stored.push(response.getStatus()));
    client.addRequest(request);
  }
  const request = new requests.NActionRequest(STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE, REQUEST_STORAGE_COMMITMENT);
  request.setDataset(
    new Dataset({
      TransactionUID: order.transaction_uid,
      ReferencedSOPSequence: order.references.map(([sopClass, sopInstance]) => ({
        ReferencedSOPClassUID: sopClass,
        ReferencedSOPInstanceUID: sopInstance,
      })),
    }),
  );
  request.on('response', (response) => {
    outcome.action = response.getStatus();
  });
  client.addRequest(request);
  client.on('nEventReportRequest', (report, callback) => {
    callback(take(report, 'same'));
    client.network.sendAssociationReleaseRequest(); // rather than when the time to linger is over
  });
  client.on('networkError', (error) => outcome.problems.push(`client: ${error}`));
  client.on('closed', () => {
    released = true;
    finish();
  });
  client.send(order.host, order.port, order.calling_ae_title, order.called_ae_title, {
    associationLingerTimeout: order.linger * 1000,
  });
}

if (order.listen === null) {
  ask();
} else {
  server.on('listening', ask);
  server.listen({ host: '127.0.0.1', port: order.listen }); // Node's own form: a bare port would be open to all
}

setTimeout(() => {
  outcome.problems.push('patience is over');
  console.log(JSON.stringify(outcome));
  process.exit(1);
}, order.patience * 1000);
