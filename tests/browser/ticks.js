// A relay-only data channel of the page to itself, over which a number goes there and back again and again.
// Called with the servers; reports in window.ticks for as long as the page is there.
const [iceServers] = arguments;
const ticks = (window.ticks = { echoed: 0, failed: null, pair: null });

const main = async () => {
  const ends = [0, 1].map(() => new RTCPeerConnection({ iceServers, iceTransportPolicy: "relay" }));
  const [near, far] = ends;
  ends.forEach((end, i) => {
    end.onicecandidate = ({ candidate }) => { if (candidate?.candidate) ends[1 - i].addIceCandidate(candidate); };
    // "disconnected" may heal elsewhere; a call that nothing disturbs does not even hesitate.
    end.oniceconnectionstatechange = () => {
      if (["disconnected", "failed"].includes(end.iceConnectionState)) ticks.failed = end.iceConnectionState;
    };
  });
  far.ondatachannel = ({ channel }) => { channel.onmessage = ({ data }) => channel.send(data); };
  const channel = near.createDataChannel("ticks");
  channel.onopen = () => channel.send("0");
  channel.onclose = () => { ticks.failed = "the channel is closed"; };
  channel.onmessage = ({ data }) => {
    if (Number(data) !== ticks.echoed) ticks.failed = `${data} came where ${ticks.echoed} was due`;
    ticks.echoed += 1;
    setTimeout(() => channel.send(String(ticks.echoed)), 20);
  };
  const offer = await near.createOffer();
  await Promise.all([near.setLocalDescription(offer), far.setRemoteDescription(offer)]);
  const answer = await far.createAnswer();
  await Promise.all([far.setLocalDescription(answer), near.setRemoteDescription(answer)]);
  window.look = async () => {
    const stats = await near.getStats();
    const transport = [...stats.values()].find((s) => s.type === "transport");
    const pair = stats.get(transport?.selectedCandidatePairId);
    const local = stats.get(pair?.localCandidateId);
    ticks.pair = local && { type: local.candidateType, relayProtocol: local.relayProtocol };
  };
};
main().catch((e) => { ticks.failed = String(e); });
