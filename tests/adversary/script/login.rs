//! Who gets in, by which door, and with what.

use super::{Outcome, Stop, Target, flawed, succeeds};
use crate::visitor::{Crafted, Gone, Visitor, minted, transaction, unix_now};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::Key;

/// Whether nobody gets in with any of these.
fn nobody_gets_in(target: &Target, credentials: &[(String, String)]) -> Outcome {
    for (username, password) in credentials {
        let code = Visitor::udp(target.address, username, password).allocates(&[]).ok_or(Gone)?.code();
        if code == 200 {
            return flawed(format_args!("{username:?} with {password:?} has an allocation"));
        }
    }
    target.is_well("login")
}

pub(super) fn quotes_log_nobody_in(target: &Target) -> Outcome {
    let names = ["' OR '1'='1", "' OR 1=1 --", "admin'--", "\" OR \"\"=\"", "x' UNION SELECT 'x", "'; SELECT 1; --"];
    let own = |name: &str| (name.to_owned(), name.to_owned());
    let future = target.expires;
    let dated = |name: &str| (format!("{future}:{name}"), String::new());
    let credentials: Vec<_> = names.into_iter().flat_map(|name| [own(name), dated(name)]).collect();
    nobody_gets_in(target, &credentials)
}

pub(super) fn statements_delete_nobody(target: &Target) -> Outcome {
    target.is_well("v8hj")?;
    let future = target.expires;
    let names = [
        "x'; DELETE FROM turnusers_lt; --",
        "x'; DROP TABLE turn_secret; --",
        "%'; DELETE FROM turn_secret WHERE '1'='1",
    ];
    let credentials: Vec<_> = names
        .into_iter()
        .flat_map(|name| [name.to_owned(), format!("{future}:{name}")])
        .map(|name| (name, "x".into()))
        .collect();
    nobody_gets_in(target, &credentials)?;
    target.is_well("v8hj")
}

pub(super) fn wrong_passwords_log_nobody_in(target: &Target) -> Outcome {
    let (username, password) = minted(target.secret, target.expires, "7f7d");
    let (_, other) = minted(target.secret, target.expires, "another");
    let half = password[..password.len() / 2].to_owned();
    let wrong = [
        String::new(),
        "x".into(),
        username.clone(),
        target.secret.to_owned(),
        target.realm.to_owned(),
        other,
        half,
        format!("{password} "),
        format!("{password}\0"),
        password.to_uppercase(),
        password.to_lowercase(),
    ];
    let credentials: Vec<_> = wrong.into_iter().map(|wrong| (username.clone(), wrong)).collect();
    nobody_gets_in(target, &credentials)?;
    let mut right = Visitor::udp(target.address, &username, &password);
    succeeds(right.allocates(&[]), "the right password gets no allocation either").map(drop)
}

pub(super) fn forged_signatures_are_refused(target: &Target) -> Outcome {
    let (username, password) = minted(target.secret, target.expires, "dbc2");
    let mut visitor = Visitor::udp(target.address, &username, &password);
    let nonce = visitor.learns().ok_or(Gone)?.get(Attribute::NONCE).ok_or(Gone)?;
    let key = Key::md5(&username, target.realm, &password);
    let before = [(Attribute::REQUESTED_TRANSPORT, vec![17, 0, 0, 0])];
    let (name, realm) = (username.as_bytes(), target.realm.as_bytes());
    let crafted = Crafted {
        method: Method::ALLOCATE,
        before: &before,
        username: name,
        realm,
        nonce: &nonce,
        key: &key,
        behind: &[],
    };
    for at in 1..=20 {
        let mut request = crafted.bytes(transaction());
        let forged = request.len() - at;
        request[forged] ^= 1;
        if visitor.tries(&request)?.is_some_and(|answer| answer.code() == 200) {
            return flawed(format_args!("a signature that is wrong {at} bytes from its end is taken"));
        }
    }
    Err(Stop::NotShown("nanoseconds of a comparison are not seen over a network"))
}

/// The TCP sockets over IPv4 that a process listens on, by what the system tells.
fn listening(pid: u32) -> Result<Vec<SocketAddr>, Stop> {
    let mut inodes = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|_| Gone)?.flatten() {
        let Ok(link) = std::fs::read_link(entry.path()) else { continue };
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')).map(str::to_owned);
        inodes.extend(inode);
    }
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).map_err(|_| Gone)?;
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, "0A", _, _, _, _, _, inode, ..] = words[..] else { continue };
        if !inodes.contains(inode) {
            continue;
        }
        let Some((ip, port)) = local.split_once(':') else { continue };
        let (Ok(ip), Ok(port)) = (u32::from_str_radix(ip, 16), u16::from_str_radix(port, 16)) else { continue };
        found.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip.to_ne_bytes())), port));
    }
    Ok(found)
}

pub(super) fn no_door_but_the_configured_ones(target: &Target) -> Outcome {
    for address in listening(target.pid)? {
        if !target.doors.contains(&address) {
            return flawed(format_args!("it listens on {address}, which nobody asked for"));
        }
    }
    let Some((console, _)) = target.console else { return Ok(()) };
    // Whoever has no password is told nothing of what is inside.
    if says_to_console(console, &["ps", "ps"])?.contains("total sessions") {
        return flawed("the console serves whoever has no password");
    }
    Ok(())
}

/// Says these lines to a console, each when it has answered the one before; all that it says.
fn says_to_console(console: SocketAddr, lines: &[&str]) -> Result<String, Stop> {
    let mut stream = TcpStream::connect(console).map_err(|_| Gone)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out can be set");
    let mut told = String::new();
    for line in lines.iter().chain(&["quit"]) {
        let begin = told.len();
        let is_prompt = |told: &str| told[begin..].contains("> ") || told[begin..].contains("assword");
        let mut room = [0; 4096];
        while !is_prompt(&told) {
            match stream.read(&mut room) {
                Ok(1..) => told.push_str(&String::from_utf8_lossy(&room).replace('\0', "")),
                Ok(0) | Err(_) => return Ok(told),
            }
            room = [0; 4096];
        }
        let _cut_off = stream.write_all(format!("{line}\r\n").as_bytes());
    }
    let mut last = Vec::new();
    let _cut_off = stream.read_to_end(&mut last);
    Ok(told + &String::from_utf8_lossy(&last))
}

pub(super) fn no_command_writes_a_file(target: &Target) -> Outcome {
    let Some((console, password)) = target.console else {
        return Err(Stop::NotShown("there is no console"));
    };
    let file = target.log.with_file_name("precious");
    std::fs::write(&file, "precious").expect("a file is written");
    says_to_console(console, &[password, &format!("psd {}", file.display())])?;
    let left = std::fs::read_to_string(&file).unwrap_or_default();
    if left == "precious" { Ok(()) } else { flawed("`psd` of the console overwrites a file") }
}

pub(super) fn credentials_live_a_day_at_most(target: &Target) -> Outcome {
    const DAY: u64 = 86_400;
    let now = unix_now();
    for (expires, what) in
        [(now - 60, "ended a minute ago"), (now + 30 * DAY, "lives a month"), (u64::MAX, "never ends")]
    {
        let (username, password) = minted(target.secret, expires, "ghost");
        let code = Visitor::udp(target.address, &username, &password).allocates(&[]).ok_or(Gone)?.code();
        if code == 200 {
            return flawed(format_args!("a credential that {what} is taken"));
        }
    }
    target.is_well("ghost")
}

pub(super) fn nonces_cannot_be_foreseen(target: &Target) -> Outcome {
    const COUNT: usize = 128;
    // Sockets stay open: an address that comes again may have the same nonce again.
    let mut strangers: Vec<Visitor> = (0..COUNT).map(|_| Visitor::udp(target.address, "x", "y")).collect();
    let mut nonces = Vec::new();
    for stranger in &mut strangers {
        nonces.push(stranger.learns().ok_or(Gone)?.get(Attribute::NONCE).ok_or(Gone)?);
    }
    match crate::chance::is_foreseeable(&nonces) {
        Some(why) => flawed(format_args!("nonces can be foreseen: {why}")),
        None => Ok(()),
    }
}
