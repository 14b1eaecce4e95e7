// Two RTCPeerConnections of one page call each other through relays alone, with fake video and a data channel.
// Arguments: what to ask of POST /v1/ice-servers, and the API token. Returns what getStats says of the call.
const [wanted, token] = arguments;
const answer = await fetch('/v1/ice-servers', {
  method: 'POST',
  headers: { 'authorization': `Bearer ${token}`, 'content-type': 'application/json' },
  body: JSON.stringify(wanted),
});
if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
const { iceServers } = await answer.json();
const configuration = { iceServers, iceTransportPolicy: 'relay' };
const caller = new RTCPeerConnection(configuration);
const callee = new RTCPeerConnection(configuration);
const errors = [];
for (const [from, to] of [[caller, callee], [callee, caller]]) {
  from.onicecandidate = ({ candidate }) => candidate && to.addIceCandidate(candidate);
  from.onicecandidateerror = (event) => errors.push(`${event.url} ${event.errorCode} ${event.errorText}`);
}
const video = await navigator.mediaDevices.getUserMedia({ video: true });
video.getTracks().forEach((track) => caller.addTrack(track, video));
const channel = caller.createDataChannel('words');
callee.ondatachannel = ({ channel }) => { channel.onmessage = ({ data }) => channel.send(`heard ${data}`); };
const heard = new Promise((resolve) => {
  channel.onmessage = ({ data }) => resolve(data);
  channel.onopen = () => channel.send('hello');
});
await caller.setLocalDescription();
await callee.setRemoteDescription(caller.localDescription);
await callee.setLocalDescription();
await caller.setRemoteDescription(callee.localDescription);

const within = (promise, what) => Promise.race([promise, new Promise((_, reject) =>
  setTimeout(() => reject(new Error(`${what} within 30 s; ${errors.join('; ')}`)), 30000))]);
const reply = await within(heard, 'no word over the data channel');
const decoded = async () => {
  for (;;) {
    for (const report of (await callee.getStats()).values()) {
      if (report.type === 'inbound-rtp' && report.framesDecoded >= 10) return report.framesDecoded;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
};
const framesDecoded = await within(decoded(), 'no ten frames decoded');
const stats = await caller.getStats();
const transport = [...stats.values()].find((report) => report.type === 'transport');
const pair = stats.get(transport.selectedCandidatePairId);
const local = stats.get(pair.localCandidateId);
const remote = stats.get(pair.remoteCandidateId);
const urls = iceServers.flatMap((server) => server.urls);
caller.close();
callee.close();
return {
  reply, framesDecoded, urls, local: local.candidateType, remote: remote.candidateType,
  relayProtocol: local.relayProtocol, url: local.url,
};
