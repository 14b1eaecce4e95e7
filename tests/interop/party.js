// One party of a call between two pages, with fake video both ways and a data channel. It lives from step to step in
// the page, and whoever runs the steps carries descriptions and candidates from page to page.
// Arguments: the step and what it is given. Returns what the other page or the test wants to know.
const [step, given] = arguments;

const join = async (configuration) => {
  window.party?.connection.close();
  const connection = new RTCPeerConnection(configuration);
  const channel = connection.createDataChannel('words', { negotiated: true, id: 0 });
  const heard = new Promise((resolve) => { channel.onmessage = ({ data }) => resolve(data); });
  const open = new Promise((resolve) => { channel.onopen = resolve; });
  const party = { connection, channel, heard, open, candidates: [], errors: [] };
  connection.onicecandidate = ({ candidate }) => candidate && party.candidates.push(candidate.toJSON());
  connection.onicecandidateerror = ({ url, errorCode, errorText }) =>
    party.errors.push(`${url} ${errorCode} ${errorText}`);
  window.party = party;
  const video = await navigator.mediaDevices.getUserMedia({ video: true });
  video.getTracks().forEach((track) => connection.addTrack(track, video));
};

const describe = async () => {
  const { connection } = window.party;
  await connection.setLocalDescription();
  return connection.localDescription.toJSON();
};

const decoded = async () => {
  for (;;) {
    for (const report of (await window.party.connection.getStats()).values()) {
      if (report.type === 'inbound-rtp' && report.framesDecoded >= 10) return report.framesDecoded;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
};

const within = (promise, what) => Promise.race([promise, new Promise((_, reject) =>
  setTimeout(() => reject(new Error(`${what} within 25 s; ${window.party.errors.join('; ')}`)), 25000))]);

const talk = async (word) => {
  const { connection, channel, heard, open } = window.party;
  await within(open, 'no data channel');
  channel.send(word);
  const reply = await within(heard, 'no word over the data channel');
  const framesDecoded = await within(decoded(), 'no ten frames decoded');
  const stats = await connection.getStats();
  const transport = [...stats.values()].find((report) => report.type === 'transport');
  const pair = stats.get(transport.selectedCandidatePairId);
  const local = stats.get(pair.localCandidateId);
  const remote = stats.get(pair.remoteCandidateId);
  return {
    heard: reply, framesDecoded, local: local.candidateType, remote: remote.candidateType,
    relayProtocol: local.relayProtocol, url: local.url,
  };
};

switch (step) {
  case 'offer':
    await join(given);
    return describe();
  case 'answer':
    await join(given.configuration);
    await window.party.connection.setRemoteDescription(given.offer);
    return describe();
  case 'accept':
    return window.party.connection.setRemoteDescription(given);
  // Takes candidates of the other page, and gives its own and how far it is. Chromium never calls iceConnectionState
  // failed; connectionState is, as soon as ICE has failed.
  case 'trickle': {
    const { connection, candidates } = window.party;
    for (const candidate of given) await connection.addIceCandidate(candidate);
    return { candidates: candidates.splice(0), state: connection.connectionState };
  }
  case 'talk':
    return talk(given);
}
