//! The per-packet path: Send, Data, ChannelData and ICMP (RFC 8656 §11, §12).
//!
//! A packet passes when its allocation, its permission and, for ChannelData, its channel are alive at this moment. The
//! payload stays where it is: only the borders of the packet move. Data keeps nothing alive (§9, §12).
#![forbid(unsafe_code)]

use super::peers::Destination;
use super::refusal::Dropped;
use super::server::{Server, is_understood};
use super::{Effect, FiveTuple, Protocol, RelayId, Verdict};
use crate::time::Now;
use crate::wire::Packet;
use crate::wire::channel::{self, ChannelData, ChannelError};
use crate::wire::codes::{Attribute, Class, MAGIC_COOKIE, Method, message_type};
use crate::wire::icmp::Icmp;
use crate::wire::nesting;
use crate::wire::packet::Marks;
use crate::wire::reply::Reply;
use crate::wire::stun::{Family, Message, TransactionId, xor_address_value};
use core::net::SocketAddr;
use rand_chacha::rand_core::Rng;

/// Relayed messages inside what is relayed. A circle of relays takes one off on each pass, or puts one on, so that one packet
/// makes eight at most (RFC 8656 §21.1.7); a relay behind a relay needs one.
const MAX_NESTED: usize = 7;

impl Server {
    /// ChannelData from a client.
    pub(super) fn channel_data(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        packet: &mut Packet,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let head = match ChannelData::parse(packet.data()) {
            Ok(head) => head,
            Err(ChannelError::Short | ChannelError::Number) => return Dropped::BadChannelData.into(),
        };
        let Some(id) = self.table.find(tuple) else { return Dropped::NoAllocation.into() };
        let Some(allocation) = self.table.get_mut(id) else { return Dropped::NoAllocation.into() };
        let Some(channel) = allocation.channel(head.number, now).copied() else {
            return if allocation.is_over(now) { Dropped::NoAllocation } else { Dropped::NoChannel }.into();
        };
        if !allocation.permits(channel.peer.ip(), now) {
            return if allocation.is_over(now) { Dropped::NoAllocation } else { Dropped::NoPermission }.into();
        }
        packet.keep(channel::HEAD..channel::HEAD + head.length);
        let is_moving = allocation.is_moving_to(tuple);
        let verdict = self.forward(now, id, channel.peer, channel.destination, packet);
        if is_moving && matches!(verdict, Verdict::ToPeer { .. }) {
            self.settle(id, effects);
        }
        verdict
    }

    /// A Send indication from a client.
    pub(super) fn send(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        packet: &mut Packet,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let Ok(message) = Message::parse(packet.data()) else { return Dropped::Malformed.into() };
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS);
        let data = message.range(Attribute::DATA);
        let (Some(Ok(peer)), Some(data)) = (peer, data) else { return Dropped::BadIndication.into() };
        if !is_understood(&message) {
            return Dropped::BadIndication.into();
        }
        let Some(id) = self.table.find(tuple) else { return Dropped::NoAllocation.into() };
        let Some(allocation) = self.table.get(id).filter(|held| !held.is_over(now)) else {
            return Dropped::NoAllocation.into();
        };
        if allocation.protocol == Protocol::Tcp {
            return Dropped::BadIndication.into(); // RFC 6062 §5: connections have no Send
        }
        if !allocation.permits(peer.ip(), now) {
            return Dropped::NoPermission.into();
        }
        let Some(destination) = self.policy.peers.vet(peer) else {
            self.tally.peer_denied.add(1);
            return Dropped::PeerDenied.into();
        };
        let is_moving = allocation.is_moving_to(tuple);
        // DONT-FRAGMENT means nothing where IPv6 is on either side (RFC 8656 §13).
        let is_ipv4 = tuple.client.is_ipv4() && peer.is_ipv4();
        packet.marks.whole = is_ipv4 && message.get(Attribute::DONT_FRAGMENT).is_some();
        packet.keep(data);
        let verdict = self.forward(now, id, peer, destination, packet);
        if is_moving && matches!(verdict, Verdict::ToPeer { .. }) {
            self.settle(id, effects);
        }
        verdict
    }

    /// A datagram from a peer.
    pub(super) fn peer_data(&mut self, now: Now, id: RelayId, from: SocketAddr, packet: &mut Packet) -> Verdict {
        let Some(allocation) = self.table.get_mut(id) else { return Dropped::NoAllocation.into() };
        if allocation.leg(Family::of(from.ip()), now).is_none() {
            return Dropped::NoAllocation.into();
        }
        if !allocation.permits(from.ip(), now) {
            return Dropped::NoPermission.into();
        }
        if nesting::is_deeper_than(packet.data(), MAX_NESTED) {
            return Dropped::Nested.into();
        }
        let Some(marks) = onward(packet.marks) else { return Dropped::Ttl.into() };
        packet.marks = marks;
        let bytes = packet.len() as u64;
        let framed = match allocation.channel_to(from, now) {
            Some(channel) => {
                u16::try_from(packet.len()).is_ok_and(|length| packet.prepend(&channel::head(channel.number, length)))
            }
            None => {
                let mut transaction: TransactionId = [0; 12];
                self.rng.fill_bytes(&mut transaction);
                data_indication(packet, from, transaction)
            }
        };
        if !framed {
            return Dropped::TooLarge.into();
        }
        // Only what leaves is charged.
        if let Some(rate) = self.policy.limits.bandwidth_per_allocation
            && !allocation.downward.take(now.mono, rate, bytes)
        {
            self.tally.limited_bandwidth.add(1);
            return Dropped::Bandwidth.into();
        }
        if allocation.path.tuple.transport.is_stream() {
            packet.pad();
        }
        allocation.usage.packets_to_client += 1;
        allocation.usage.bytes_to_client += bytes;
        self.tally.to_client.packets.add(1);
        self.tally.to_client.bytes.add(bytes);
        Verdict::ToClient(allocation.path)
    }

    /// What became of a datagram that a relay address has sent (RFC 8656 §11.5).
    pub(super) fn icmp(&mut self, now: Now, id: RelayId, peer: SocketAddr, icmp: Icmp, packet: &mut Packet) -> Verdict {
        let Some(allocation) = self.table.get(id) else { return Dropped::NoAllocation.into() };
        if allocation.leg(icmp.family, now).is_none() {
            return Dropped::NoAllocation.into();
        }
        if !icmp.is_relayed() {
            return Dropped::Unexpected.into();
        }
        if !allocation.permits(peer.ip(), now) {
            return Dropped::NoPermission.into();
        }
        let mut transaction: TransactionId = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let mut data = Reply::new(packet.space(), Method::DATA, Class::Indication, transaction);
        data.xor_address(Attribute::XOR_PEER_ADDRESS, peer).bytes(Attribute::ICMP, &icmp.value());
        let Some(len) = data.finish() else { return Dropped::Overflow.into() };
        packet.set_len(len);
        packet.marks = Marks::default();
        Verdict::ToClient(allocation.path)
    }

    fn forward(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        destination: Destination,
        packet: &mut Packet,
    ) -> Verdict {
        let Some(allocation) = self.table.get_mut(relay) else { return Dropped::NoAllocation.into() };
        if allocation.leg(Family::of(peer.ip()), now).is_none() {
            return Dropped::NoAllocation.into();
        }
        if nesting::is_deeper_than(packet.data(), MAX_NESTED) {
            return Dropped::Nested.into();
        }
        let Some(marks) = onward(packet.marks) else { return Dropped::Ttl.into() };
        packet.marks = marks;
        let bytes = packet.len() as u64;
        if let Some(rate) = self.policy.limits.bandwidth_per_allocation
            && !allocation.upward.take(now.mono, rate, bytes)
        {
            self.tally.limited_bandwidth.add(1);
            return Dropped::Bandwidth.into();
        }
        allocation.usage.packets_to_peer += 1;
        allocation.usage.bytes_to_peer += bytes;
        self.tally.to_peer.packets.add(1);
        self.tally.to_peer.bytes.add(bytes);
        Verdict::ToPeer { relay, peer, destination }
    }
}

/// The marks a packet leaves with: a hop less to live, DSCP and ECN as they came (RFC 8656 §14). `None` for a packet
/// whose last hop this was.
fn onward(marks: Marks) -> Option<Marks> {
    match marks.ttl {
        Some(0 | 1) => None,
        Some(ttl) => Some(Marks { ttl: Some(ttl - 1), ..marks }),
        None => Some(marks),
    }
}

/// Makes the packet the DATA of a Data indication. `false` when it is too long for one.
fn data_indication(packet: &mut Packet, from: SocketAddr, transaction: TransactionId) -> bool {
    let (address, address_len) = xor_address_value(from, &transaction);
    let data = packet.len();
    packet.pad();
    let (Ok(length), Ok(data)) = (u16::try_from(4 + address_len + 4 + packet.len()), u16::try_from(data)) else {
        return false;
    };
    let mut head = [0; 20 + 4 + 20 + 4];
    let parts: [&[u8]; 8] = [
        &message_type(Method::DATA, Class::Indication).to_be_bytes(),
        &length.to_be_bytes(),
        &MAGIC_COOKIE.to_be_bytes(),
        &transaction,
        &Attribute::XOR_PEER_ADDRESS.0.to_be_bytes(),
        &(address_len as u16).to_be_bytes(),
        address.get(..address_len).unwrap_or_default(),
        &Attribute::DATA.0.to_be_bytes(),
    ];
    let bytes = parts.into_iter().flatten().copied().chain(data.to_be_bytes());
    let mut len = 0;
    for (to, from) in head.iter_mut().zip(bytes) {
        *to = from;
        len += 1;
    }
    packet.prepend(head.get(..len).unwrap_or_default())
}
