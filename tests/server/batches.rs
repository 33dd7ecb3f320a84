//! What happens in the middle of a batch: the server is stopped, much is sent, and it finds all of it at once.

use crate::caller::{CHANNEL, Caller, Peer, Wire, channel_data};
use crate::server::{Server, Setup, until};
use socket2::SockRef;
use std::time::Duration;

fn one_worker() -> Server {
    Server::start_with(&Setup { workers: 1, allow: vec!["127.0.0.0/8"], ..Setup::default() })
}

#[test]
fn an_allocation_that_ends_mid_batch_sends_nobody_s_data_elsewhere() {
    let server = one_worker();
    let mut callers: Vec<Caller> = (0..4).map(|_| Caller::udp(server.address())).collect();
    let peers: Vec<Peer> = (0..4).map(|_| Peer::new()).collect();
    let mut relays = Vec::new();
    for (caller, peer) in callers.iter_mut().zip(&peers) {
        relays.push(caller.allocate().expect("an allocation"));
        caller.bind(CHANNEL, peer.address()).expect("a channel");
    }

    server.signal("STOP");
    peers[0].says(relays[0], b"to the first");
    peers[1].says(relays[1], b"to the second");
    let release = callers[2].client.refresh(Some(0));
    callers[2].says(&release);
    callers[3].says(&channel_data(CHANNEL, b"for the fourth peer alone"));
    server.signal("CONT");

    assert_eq!(peers[3].hears(), (relays[3], b"for the fourth peer alone".to_vec()));
    assert!(peers[0].hears_nothing() && peers[1].hears_nothing());
}

#[test]
fn a_connection_that_breaks_mid_batch_leaves_no_allocation() {
    let server = one_worker();
    let mut caller = Caller::tcp(server.address());
    caller.binding().expect("an answer");
    let challenge = caller.client.allocate(None);
    caller.answer(&challenge);

    server.signal("STOP");
    let mut flood: Vec<u8> = (0..300).flat_map(|_| caller.client.binding()).collect();
    flood.extend(caller.client.allocate(None));
    caller.says(&flood);
    let Wire::Tcp(stream, _) = caller.wire else { panic!("this caller is on TCP") };
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a reset can be asked for");
    drop(stream);
    server.signal("CONT");

    until("the connection is gone", || server.metric("turnserver_connections{transport=\"tcp\"}") < 1.0);
    until("no allocation is left", || server.metric_sum("turnserver_allocations{") < 1.0);
}
