//! The same packets whichever way they go: one by one, as trains (UDP_SEGMENT, UDP_GRO), from relay to relay in the process.

use crate::caller::{CHANNEL, Caller, Data, Peer, V4, Wire, channel_data};
use crate::namespace::{alone, ip};
use crate::server::{Server, Setup, free_port, until};
use crate::skip::skip;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use turnserver::net::udp::{self, Abilities, Batch, Modes, Outgoing};
use turnserver::wire::Packet;
use turnserver::wire::packet::{Marks, SLOT};

fn server(workers: u32) -> Server {
    Server::start_with(&Setup { workers, allow: vec!["127.0.0.0/8"], ..Setup::default() })
}

/// Whether this system has trains; the tests of them are skipped where it has not.
fn has_trains() -> bool {
    let has = Abilities::probe() == Abilities { receives_trains: true, sends_trains: true };
    if !has {
        skip("this kernel has no UDP_SEGMENT or no UDP_GRO");
    }
    has
}

/// Sends these as one train, or as the few that they can be.
fn send_train(socket: BorrowedFd<'_>, to: SocketAddr, datagrams: &[Vec<u8>]) {
    let datagrams = datagrams.iter().map(|data| Outgoing { data, to, source: None, marks: Marks::default() });
    Batch::new(true).send(socket, &Modes::default(), datagrams, |at, error| panic!("{at}: {error}"));
}

/// Datagrams of these lengths, each with other bytes.
fn payloads(lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths.iter().enumerate().map(|(at, length)| (0..*length).map(|byte| (at * 31 + byte) as u8).collect()).collect()
}

/// A client with a channel to a peer, on one worker.
fn call(server: &Server, peer: &Peer) -> (Caller, SocketAddr) {
    let mut caller = Caller::udp(server.address());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    (caller, relay)
}

fn socket(caller: &Caller) -> &UdpSocket {
    let Wire::Udp(socket) = &caller.wire else { panic!("this caller is on UDP") };
    socket
}

#[test]
fn a_train_arrives_as_the_datagrams_it_is_made_of() {
    if !has_trains() {
        return;
    }
    let server = server(1);
    let peer = Peer::new();
    let (mut caller, relay) = call(&server, &peer);

    for lengths in [vec![100; 5], vec![100, 100, 100, 37], vec![1; 64], vec![1200, 1200, 1], vec![160, 161, 160, 160]] {
        let said = payloads(&lengths);
        let framed: Vec<_> = said.iter().map(|payload| channel_data(CHANNEL, payload)).collect();
        send_train(socket(&caller).as_fd(), server.address(), &framed);
        let heard: Vec<_> = said.iter().map(|_| peer.hears()).collect();
        assert_eq!(heard, said.iter().map(|payload| (relay, payload.clone())).collect::<Vec<_>>(), "{lengths:?} up");

        send_train(peer.0.as_fd(), relay, &said);
        let heard: Vec<_> = said.iter().map(|_| caller.data()).collect();
        assert_eq!(heard, said.into_iter().map(|payload| Data::On(CHANNEL, payload)).collect::<Vec<_>>(), "down");
    }
    let packets = server.metric("turnserver_relayed_packets_total{direction=\"to_peer\",path=\"userspace\"}");
    assert_eq!(packets, (5 + 4 + 64 + 3 + 4) as f64);
}

#[test]
fn a_train_of_requests_is_answered_request_by_request() {
    if !has_trains() {
        return;
    }
    let server = server(1);
    let mut caller = Caller::udp(server.address());
    let requests: Vec<_> = (0..20).map(|_| caller.client.binding()).collect();
    send_train(socket(&caller).as_fd(), server.address(), &requests);
    for request in &requests {
        let answer = caller.hears().expect("an answer");
        assert_eq!(answer[8..20], request[8..20], "the answers come in order");
    }
}

#[test]
fn more_trains_at_once_than_there_is_room_for_lose_nothing_and_keep_their_order() {
    if !has_trains() {
        return;
    }
    let server = server(1);
    let peer = Peer::new();
    // A train counts as one in the socket's buffer: nothing is lost there.
    udp::receive_trains(peer.0.as_fd()).expect("this kernel has trains");
    let (caller, _) = call(&server, &peer);

    server.signal("STOP");
    let said: Vec<Vec<u8>> = (0..20 * 60u32).map(|number| number.to_be_bytes().repeat(10)).collect();
    for train in said.chunks(60) {
        let framed: Vec<_> = train.iter().map(|payload| channel_data(CHANNEL, payload)).collect();
        send_train(socket(&caller).as_fd(), server.address(), &framed);
    }
    server.signal("CONT");

    let mut heard = Vec::new();
    while heard.len() < 20 * 60 * 40 {
        heard.extend(peer.hears().1);
    }
    assert!(heard == said.concat(), "every datagram, once and in order");
}

#[test]
fn on_a_link_that_no_train_fits_every_datagram_arrives() {
    if !has_trains() {
        return;
    }
    alone("server::trains::on_a_link_that_no_train_fits_every_datagram_arrives", || {
        // Datagrams of 1300 bytes are cut here, and what is cut cannot be a train.
        ip("link set lo mtu 1280");
        let server = server(1);
        let peer = Peer::new();
        let (mut caller, relay) = call(&server, &peer);
        for length in [1200, 1300, 1472] {
            let said = payloads(&[length; 20]);
            server.signal("STOP");
            said.iter().for_each(|payload| caller.sends_on(CHANNEL, payload));
            server.signal("CONT");
            let heard: Vec<_> = said.iter().map(|_| peer.hears()).collect();
            assert_eq!(heard, said.iter().map(|payload| (relay, payload.clone())).collect::<Vec<_>>(), "{length} up");

            server.signal("STOP");
            said.iter().for_each(|payload| peer.says(relay, payload));
            server.signal("CONT");
            let heard: Vec<_> = said.iter().map(|_| caller.data()).collect();
            assert_eq!(
                heard,
                said.into_iter().map(|said| Data::On(CHANNEL, said)).collect::<Vec<_>>(),
                "{length} down"
            );
        }
    });
}

#[test]
fn what_a_socket_has_no_room_for_is_counted() {
    let server = server(1);
    let peer = Peer::new();
    let (mut caller, relay) = call(&server, &peer);

    server.signal("STOP");
    for _ in 0..20_000 {
        peer.says(relay, &[7; 1000]);
    }
    server.signal("CONT");
    assert!(matches!(caller.data(), Data::On(CHANNEL, _)));
    until("the rest is missed", || {
        // The system tells with the next datagram.
        peer.says(relay, b"and another");
        server.metric("turnserver_dropped_packets_total{reason=\"receive_buffer\"}") > 0.0
    });
}

/// A peer that sees what the IP header says.
struct Observer(OwnedFd, SocketAddr);

impl Observer {
    fn new() -> Self {
        let address = SocketAddr::new(V4, free_port());
        Self(udp::relay(address, false).expect("a socket"), address)
    }

    fn marks(&self) -> Marks {
        let mut slots = [Packet::new(vec![0; SLOT].into())];
        let mut batch = Batch::new(false);
        loop {
            match batch.receive(self.0.as_fd(), &mut slots) {
                Ok(_) => return slots[0].marks,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
}

#[test]
fn datagrams_of_one_call_keep_their_own_hops_and_class() {
    let observer = Observer::new();
    let sender = udp::relay(SocketAddr::new(V4, free_port()), false).expect("a socket");
    let (modes, mut batch) = (Modes::default(), Batch::new(true));
    let marks = |class, ttl| Marks { class, ttl: Some(ttl), whole: false };
    for _ in 0..3 {
        // Each of another length than its neighbours: no trains.
        let wanted: Vec<Marks> = (0..20).map(|_| marks(2, 50)).chain((0..40).map(|_| marks(3, 40))).collect();
        let bytes = [0; 200];
        let out = wanted.iter().enumerate().map(|(at, marks)| Outgoing {
            data: &bytes[..100 + at],
            to: observer.1,
            source: None,
            marks: *marks,
        });
        batch.send(sender.as_fd(), &modes, out, |at, error| panic!("{at}: {error}"));
        for marks in wanted {
            assert_eq!(observer.marks(), marks);
        }
    }
}

#[test]
fn a_train_for_a_client_on_tcp_is_more_than_is_kept_for_one_and_not_lost() {
    if !has_trains() {
        return;
    }
    let server = server(1);
    let peer = Peer::new();
    let mut caller = Caller::tcp(server.address());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");

    let said = payloads(&[1200; 50]);
    server.signal("STOP");
    // 360,000 bytes wait in the relay socket when the server goes on, and the client reads.
    for _ in 0..6 {
        send_train(peer.0.as_fd(), relay, &said);
    }
    server.signal("CONT");
    for _ in 0..6 {
        for payload in &said {
            assert_eq!(caller.data(), Data::On(CHANNEL, payload.clone()));
        }
    }
}

#[test]
fn each_datagram_keeps_its_own_hops_and_class_however_they_change() {
    let server = server(1);
    let observer = Observer::new();
    let mut caller = Caller::udp(server.address());
    caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, observer.1).expect("a channel");

    let steady = |hops, class| std::iter::repeat_n((hops, class), 40);
    let by_turns = (0..20).map(|at| if at % 2 == 0 { (64, 0) } else { (31, 46 << 2) });
    for (hops, class) in steady(50, 0).chain(by_turns).chain(steady(33, 10 << 2)).chain(steady(64, 0)) {
        socket(&caller).set_ttl(hops).expect("hops can be set");
        socket2::SockRef::from(socket(&caller)).set_tos_v4(class).expect("the class can be set");
        caller.sends_on(CHANNEL, b"marked");
        let marks = observer.marks();
        assert_eq!((marks.ttl.map(u32::from), u32::from(marks.class)), (Some(hops - 1), class));
    }
}

/// Two clients of a server with two workers, their channels bound to each other's relay addresses.
fn pair(server: &Server) -> ([Caller; 2], [SocketAddr; 2]) {
    let mut callers = [Caller::udp(server.address()), Caller::udp(server.address())];
    let relays = [0, 1].map(|at: usize| callers[at].allocate().expect("an allocation"));
    for (caller, other) in callers.iter_mut().zip([relays[1], relays[0]]) {
        caller.bind(CHANNEL, other).expect("a channel");
    }
    (callers, relays)
}

#[test]
fn what_goes_from_relay_to_relay_arrives_in_order_whichever_workers_have_them() {
    let server = server(2);
    // Eight pairs: some have both ends on one worker, some have not.
    let mut pairs: Vec<_> = (0..8).map(|_| pair(&server)).collect();
    for (callers, _) in &mut pairs {
        for from in [0, 1] {
            let said = payloads(&[160; 40]);
            said.iter().for_each(|payload| callers[from].sends_on(CHANNEL, payload));
            for payload in said {
                assert_eq!(callers[1 - from].data(), Data::On(CHANNEL, payload));
            }
        }
    }
    let relayed =
        |way| server.metric(&format!("turnserver_relayed_packets_total{{direction=\"{way}\",path=\"userspace\"}}"));
    assert_eq!((relayed("to_peer"), relayed("to_client")), (640.0, 640.0), "both allocations count each packet");
}

#[test]
fn the_relay_that_is_sent_to_asks_for_its_own_permission() {
    let server = server(2);
    for _ in 0..4 {
        let mut speaker = Caller::udp(server.address());
        let mut listener = Caller::udp(server.address());
        let from = speaker.allocate().expect("an allocation");
        let to = listener.allocate().expect("an allocation");
        speaker.bind(CHANNEL, to).expect("a channel");
        speaker.sends_on(CHANNEL, b"nobody let me in");
        // Answered after the datagram was dealt with here; on the other worker by the next answer at the latest.
        assert!(speaker.binding().is_ok() && listener.binding().is_ok());
        listener.permit(from).expect("a permission");
        speaker.sends_on(CHANNEL, b"now I am");
        assert_eq!(
            listener.data(),
            Data::From(from, b"now I am".to_vec()),
            "without a channel it is a Data indication"
        );
        listener.release();
        speaker.sends_on(CHANNEL, b"nobody lives there");
        assert!(speaker.binding().is_ok());
    }
    let dropped = |why| server.metric(&format!("turnserver_dropped_packets_total{{reason=\"{why}\"}}"));
    assert_eq!(dropped("no_permission"), 4.0);
}
