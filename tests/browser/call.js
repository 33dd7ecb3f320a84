// A relay-only call of the page to itself: an echo of data, and video one way.
// Called with the minted list, the bytes to echo and the frames to see; reports in window.call.
const [iceServers, bytes, framesWanted] = arguments;
const call = (window.call = { done: false, failed: null, echoed: 0, intact: true, frames: 0, errors: [] });

const main = async () => {
  const ends = [0, 1].map(() => new RTCPeerConnection({ iceServers, iceTransportPolicy: "relay" }));
  const [near, far] = ends;
  ends.forEach((end, i) => {
    end.onicecandidateerror = (e) => call.errors.push({ code: e.errorCode, text: e.errorText, url: e.url });
    end.onicecandidate = ({ candidate }) => { if (candidate?.candidate) ends[1 - i].addIceCandidate(candidate); };
    end.onconnectionstatechange = () => { if (end.connectionState === "failed") call.failed = "the connection failed"; };
  });

  const canvas = document.createElement("canvas");
  canvas.width = 320;
  canvas.height = 180;
  const pen = canvas.getContext("2d");
  let turn = 0;
  const drawing = setInterval(() => {
    turn += 1;
    pen.fillStyle = `hsl(${turn * 3 % 360} 60% 50%)`;
    pen.fillRect(0, 0, 320, 180);
    pen.clearRect(turn * 4 % 320, 40, 60, 60);
  }, 33);
  for (const track of canvas.captureStream(30).getTracks()) near.addTrack(track);

  const sent = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += 65_536) crypto.getRandomValues(sent.subarray(at, at + 65_536));
  far.ondatachannel = ({ channel }) => {
    channel.binaryType = "arraybuffer";
    channel.onmessage = ({ data }) => channel.send(data);
  };
  const channel = near.createDataChannel("echo");
  channel.binaryType = "arraybuffer";
  channel.onopen = () => { for (let at = 0; at < bytes; at += 16_384) channel.send(sent.subarray(at, at + 16_384)); };
  channel.onmessage = ({ data }) => {
    const piece = new Uint8Array(data);
    if (piece.some((byte, i) => byte !== sent[call.echoed + i])) call.intact = false;
    call.echoed += piece.length;
  };

  const offer = await near.createOffer();
  await Promise.all([near.setLocalDescription(offer), far.setRemoteDescription(offer)]);
  const answer = await far.createAnswer();
  await Promise.all([far.setLocalDescription(answer), near.setRemoteDescription(answer)]);

  const path = (stats) => {
    const transport = [...stats.values()].find((s) => s.type === "transport");
    const pair = stats.get(transport?.selectedCandidatePairId);
    const local = stats.get(pair?.localCandidateId);
    return { local: local?.candidateType, remote: stats.get(pair?.remoteCandidateId)?.candidateType, relayProtocol: local?.relayProtocol };
  };
  const deadline = performance.now() + 45_000;
  while (!call.failed) {
    const stats = await far.getStats();
    call.frames = [...stats.values()].find((s) => s.type === "inbound-rtp" && s.kind === "video")?.framesDecoded ?? 0;
    if (call.echoed >= bytes && call.frames > framesWanted) {
      call.near = path(await near.getStats());
      call.far = path(stats);
      break;
    }
    if (performance.now() > deadline) call.failed = `too slow: ${near.iceConnectionState}, ${near.connectionState}`;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  clearInterval(drawing);
  ends.forEach((end) => end.close());
};
main().catch((e) => { call.failed = String(e); }).finally(() => { call.done = true; });
