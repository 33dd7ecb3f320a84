// Gathers relay candidates through the given servers; reports in window.gather.
const gather = (window.gather = { done: false, relays: 0, errors: [] });
const pc = new RTCPeerConnection({ iceServers: arguments[0], iceTransportPolicy: "relay" });
pc.onicecandidateerror = (e) => gather.errors.push({ code: e.errorCode, text: e.errorText, url: e.url });
pc.onicecandidate = ({ candidate }) => { if (candidate?.candidate) gather.relays += 1; };
pc.onicegatheringstatechange = () => {
  if (pc.iceGatheringState !== "complete") return;
  gather.done = true;
  pc.close();
};
pc.createDataChannel("gather");
pc.createOffer().then((offer) => pc.setLocalDescription(offer)).catch((e) => {
  gather.errors.push({ code: 0, text: String(e) });
  gather.done = true;
});
