//! What people read of the codec: names as the registries have them, and never a byte of a key.

use std::collections::BTreeSet;
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::{Key, PasswordAlgorithm};
use turnserver::wire::stun::Family;

#[test]
fn every_method_is_called_by_its_name() {
    let named = (0..0x1000).map(Method::new).filter(|method| method.name() != "other");
    let names: BTreeSet<_> = named.map(Method::name).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!(format!("{:?}", Method::ALLOCATE), "allocate(0x003)");
    assert_eq!(format!("{:?}", Method::new(0x7FF)), "other(0x7ff)");
    assert_eq!(Method::new(0xF003), Method::ALLOCATE);
}

#[test]
fn every_attribute_is_called_by_its_name_and_others_by_their_number() {
    let names: BTreeSet<_> = Attribute::ALL.iter().filter_map(|attribute| attribute.name()).collect();
    assert_eq!(names.len(), Attribute::ALL.len());
    assert_eq!(format!("{:?} {:?}", Attribute::XOR_PEER_ADDRESS, Attribute(0x7777)), "XOR-PEER-ADDRESS 0x7777");
    assert_eq!(Attribute(0x7777).name(), None);
    assert!(Attribute(0x7FFF).is_comprehension_required() && !Attribute(0x8000).is_comprehension_required());
}

#[test]
fn a_channel_is_shown_as_on_the_wire() {
    assert_eq!(format!("{:?}", ChannelNumber::MIN), "0x4000");
    assert_eq!(ChannelNumber::new(0x7FFF), Some(ChannelNumber::MAX));
    assert_eq!((ChannelNumber::new(0x3FFF), ChannelNumber::new(0x8000)), (None, None));
}

#[test]
fn a_key_says_that_it_is_one_and_no_more() {
    let key = Key::md5("alice", "example.org", "secret");
    assert_eq!(format!("{key:?}"), "Key(…)");
    assert_eq!((key.expose().len(), Key::sha256("alice", "example.org", "secret").expose().len()), (16, 32));
    assert_eq!(Key::from_bytes(&[7; 32]).map(|key| key.expose().to_vec()), Some(vec![7; 32]));
    assert_eq!(Key::from_bytes(&[7; 33]), None);
}

#[test]
fn numbers_on_the_wire_lead_back_to_what_they_stand_for() {
    for number in 0..=u8::MAX {
        assert_eq!(
            Family::from_number(number).map(Family::number),
            Some(number).filter(|number| (1..=2).contains(number))
        );
    }
    for number in 0..=300 {
        let algorithm = PasswordAlgorithm::from_number(number);
        assert_eq!(algorithm.map(PasswordAlgorithm::number), Some(number).filter(|number| (1..=2).contains(number)));
    }
    assert_eq!((Family::V4.other(), Family::V6.other()), (Family::V6, Family::V4));
    assert_eq!((Family::V4.name(), Family::V6.name()), ("ipv4", "ipv6"));
}
