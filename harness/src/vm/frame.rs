//! Frames: how the guest's messages are written on a wire that may carry other things too.
//!
//! A frame is a line: the byte 0x01, then `<sequence number> <payload length> <CRC-32> <payload>`.
//! The payload is JSON, in which 0x01, line ends and NUL can't occur as such: a start mark always
//! starts a frame, whatever came before it.

use crate::foreign::odd_text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uffd_results::{Environment, Outcome, Suite};

/// What a guest says when it is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
    /// Where and how the kernel is asked.
    pub environment: Environment,
    /// Which questions.
    pub suite: Suite,
    /// How many cases the guest read from its plan.
    pub cases: usize,
}

impl Hello {
    /// What is wrong with it, if anything: its texts are shown, and the guest may be anybody's.
    pub(super) fn fault(&self) -> Option<String> {
        let all = serde_json::to_value(self)
            .unwrap_or_else(|e| unreachable!("plain data serializes: {e}"));
        odd_text(&all).map(|odd| format!("the guest says of itself {odd:?}, which can't be shown"))
    }

    /// In what another guest is not this one's like, if that is so: one kernel, asked at one place by one program, says
    /// the same each time. How many cases it was given may differ.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let all = |hello: &Self| {
            serde_json::to_value(Self { cases: 0, ..hello.clone() })
                .unwrap_or_else(|e| unreachable!("plain data serializes: {e}"))
        };
        let mut differ = Vec::new();
        compare("", &all(self), &all(other), &mut differ);
        (!differ.is_empty()).then(|| differ.join("; "))
    }
}

/// Names what is not the same in both.
fn compare(name: &str, one: &Value, other: &Value, differ: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            for name in names {
                let value = |of: &serde_json::Map<String, Value>| of.get(name).cloned();
                let [one, other] = [one, other].map(|of| value(of).unwrap_or_default());
                compare(name, &one, &other, differ);
            }
        }
        _ if one == other => {}
        _ => differ.push(format!("{name} is {one} and {other}")),
    }
}

/// What a guest says. Indices count within the plan of this boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Message {
    /// The guest is up and has read its plan.
    Hello(Box<Hello>),
    /// A case begins.
    Start { index: usize },
    /// A case has ended.
    Case { index: usize, outcome: Outcome },
    /// A piece of a file that leaves the guest; the next one follows at once if there is `more`.
    File { name: String, bytes: Vec<u8>, more: bool },
    /// All cases have ended.
    End { cases: usize },
    /// The guest's program can't go on.
    Fault { text: String },
}

const MARK: u8 = 1;

/// The longest payload. An outcome has a few hundred bytes.
const LIMIT: usize = 64 << 10;

/// The bytes of a file that fit in a frame: JSON takes up to four for one.
pub(super) const PIECE: usize = 8 << 10;

/// Something on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The next message.
    Message(Message),
    /// A frame was damaged or is missing: messages are lost.
    Damage(Damage),
    /// A frame came again and was dropped.
    Repeated(u64),
    /// This many bytes belonged to no frame.
    Noise(usize),
}

/// What is wrong with a frame, or with the sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// Another frame began before this one ended, or the line was too long.
    #[error("a frame was cut short after {0} bytes")]
    CutShort(usize),
    /// Not of the form of a frame.
    #[error("a frame has no readable head")]
    Head,
    /// Not as long as its head says.
    #[error("a frame has {got} bytes of payload instead of {stated}")]
    Length { stated: usize, got: usize },
    /// The checksum is another.
    #[error("frame {0} has a wrong checksum")]
    Checksum(u64),
    /// The payload is no message.
    #[error("frame {0} holds no message: {1}")]
    Payload(u64, String),
    /// Frames are missing.
    #[error("frame {got} came where {expected} was due")]
    Gap { expected: u64, got: u64 },
}

/// What eight steps of the checksum make of each byte.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0_u32;
    while n < 256 {
        let (mut crc, mut bit) = (n, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
            bit += 1;
        }
        table[n as usize] = crc;
        n += 1;
    }
    table
};

/// CRC-32 as in Ethernet and zip, a byte at a time: under emulation bit by bit took a hundredth of a run.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ CRC[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

/// Covers the sequence number, too.
fn checksum(sequence: u64, payload: &[u8]) -> u32 {
    crc32(payload) ^ crc32(&sequence.to_le_bytes())
}

/// The frame of a message; `None` if the message is too long for one.
pub(super) fn encode(sequence: u64, message: &Message) -> Option<Vec<u8>> {
    let payload =
        serde_json::to_vec(message).unwrap_or_else(|e| unreachable!("plain data serializes: {e}"));
    (payload.len() <= LIMIT).then(|| frame(sequence, &payload))
}

/// The frame of a payload, which holds no end of a line.
pub(super) fn frame(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let crc = checksum(sequence, payload);
    let mut frame = vec![MARK];
    frame.extend(format!("{sequence} {} {crc:08x} ", payload.len()).bytes());
    frame.extend(payload);
    frame.push(b'\n');
    frame
}

/// Reads frames from bytes that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The frame so far, without its mark; `None` between frames.
    frame: Option<Vec<u8>>,
    noise: usize,
    expected: u64,
}

impl Decoder {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], items: &mut Vec<Item>) {
        for &byte in bytes {
            match (&mut self.frame, byte) {
                (_, MARK) => {
                    self.cut_short(items);
                    self.flush_noise(items);
                    self.frame = Some(Vec::new());
                }
                (Some(frame), b'\n') => {
                    let frame = std::mem::take(frame);
                    self.frame = None;
                    items.push(self.whole(&frame));
                }
                (Some(frame), _) if frame.len() < LIMIT + 64 => frame.push(byte),
                (Some(_), _) => self.cut_short(items),
                (None, _) => self.noise += 1,
            }
        }
        self.flush_noise(items);
    }

    /// Says that nothing more will come.
    pub(super) fn finish(&mut self, items: &mut Vec<Item>) {
        self.cut_short(items);
    }

    fn cut_short(&mut self, items: &mut Vec<Item>) {
        if let Some(frame) = self.frame.take() {
            items.push(Item::Damage(Damage::CutShort(frame.len())));
        }
    }

    fn flush_noise(&mut self, items: &mut Vec<Item>) {
        if self.noise > 0 {
            items.push(Item::Noise(std::mem::take(&mut self.noise)));
        }
    }

    fn whole(&mut self, frame: &[u8]) -> Item {
        let Some((sequence, stated, crc, payload)) = split(frame) else {
            return Item::Damage(Damage::Head);
        };
        if payload.len() != stated {
            return Item::Damage(Damage::Length { stated, got: payload.len() });
        }
        if checksum(sequence, payload) != crc {
            return Item::Damage(Damage::Checksum(sequence));
        }
        let expected = self.expected;
        if sequence < expected {
            return Item::Repeated(sequence);
        }
        self.expected = sequence + 1;
        if sequence > expected {
            return Item::Damage(Damage::Gap { expected, got: sequence });
        }
        match serde_json::from_slice(payload) {
            Ok(message) => Item::Message(message),
            Err(why) => Item::Damage(Damage::Payload(sequence, why.to_string())),
        }
    }
}

/// Sequence number, stated length, checksum and payload.
fn split(frame: &[u8]) -> Option<(u64, usize, u32, &[u8])> {
    let mut parts = frame.splitn(4, |&b| b == b' ');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let sequence: u64 = text()?.parse().ok().filter(|&n| n < u64::MAX)?;
    let length = text()?.parse().ok()?;
    let crc = u32::from_str_radix(text()?, 16).ok()?;
    Some((sequence, length, crc, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use uffd_results::{End, Facts};

    fn messages() -> Vec<Message> {
        let facts = Facts::parse("copy=ENOENT field=-2").expect("facts of this test");
        vec![
            Message::Start { index: 0 },
            Message::Case { index: 0, outcome: Outcome::done(facts.clone()) },
            Message::Start { index: 1 },
            Message::Case { index: 1, outcome: Outcome::ended(End::Hang, "in \"\u{e4}\"", facts) },
            Message::Fault { text: "a\u{1}b\n\0c".into() },
            Message::File { name: "mm/a.gcda".into(), bytes: vec![0, 1, b'\n', 255], more: false },
            Message::End { cases: 2 },
        ]
    }

    #[test]
    fn a_piece_of_a_file_fits_in_a_frame() {
        let bytes = vec![255; PIECE];
        let file = Message::File { name: "n".repeat(4096), bytes, more: true };
        assert!(encode(u64::MAX - 1, &file).is_some());
    }

    fn frames() -> Vec<Vec<u8>> {
        let encode = |(n, m)| encode(n, m).expect("short");
        (0..).zip(&messages()).map(encode).collect()
    }

    fn decode(bytes: &[u8]) -> Vec<Item> {
        let (mut decoder, mut items) = (Decoder::default(), Vec::new());
        decoder.feed(bytes, &mut items);
        decoder.finish(&mut items);
        items
    }

    fn sound(items: &[Item]) -> Vec<&Message> {
        items.iter().filter_map(|i| if let Item::Message(m) = i { Some(m) } else { None }).collect()
    }

    #[rstest]
    #[case("6.12.118+deb13-amd64", None)]
    #[case("\u{1b}]0;x\u{7}", Some("can't be shown"))]
    fn what_a_guest_says_of_itself_can_be_shown(
        #[case] release: &str,
        #[case] fault: Option<&str>,
    ) {
        let environment = serde_json::json!({
            "accelerator": "tcg", "cpus": 1, "memory_mib": 1, "page_size": 4096, "huge_pages_2m": 0,
            "uffd": "syscall", "uffd_features": [release], "sysctls": {},
        });
        let hello = Hello {
            release: "6.12".into(),
            version: "#1".into(),
            machine: "x86_64".into(),
            environment: serde_json::from_value(environment).expect("an environment"),
            suite: Suite { version: "0".into(), revision: "r".into() },
            cases: 1,
        };
        let found = hello.fault();
        assert_eq!(found.is_some(), fault.is_some(), "{found:?}");
        assert!(
            found.is_none_or(|why| why.contains(fault.unwrap_or("")) && !why.contains('\u{1b}'))
        );
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn messages_round_trip_in_pieces_of_any_size() {
        let bytes = frames().concat();
        for size in 1..bytes.len() {
            let (mut decoder, mut items) = (Decoder::default(), Vec::new());
            bytes.chunks(size).for_each(|chunk| decoder.feed(chunk, &mut items));
            decoder.finish(&mut items);
            let expected: Vec<_> = messages().into_iter().map(Item::Message).collect();
            assert_eq!(items, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_cut_anywhere_keeps_what_was_whole() {
        let (bytes, messages) = (frames().concat(), messages());
        let mut ends = Vec::new();
        frames().iter().fold(0, |at, f| {
            ends.push(at + f.len());
            at + f.len()
        });
        for cut in 0..bytes.len() {
            let items = decode(&bytes[..cut]);
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            assert_eq!(sound(&items), messages[..whole].iter().collect::<Vec<_>>(), "cut at {cut}");
            let within = cut > 0 && !ends.contains(&cut);
            assert_eq!(items.len(), whole + usize::from(within), "cut at {cut}: {items:?}");
        }
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_a_message() {
        let (bytes, messages) = (frames().concat(), messages());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let items = decode(&flipped);
            let sound = sound(&items);
            // Of the head's text, only the case of the checksum's letters may change unnoticed.
            if sound.len() < messages.len() {
                let seen = |i: &Item| matches!(i, Item::Damage(_) | Item::Noise(_));
                assert!(items.iter().any(seen), "bit {bit}: {items:?}");
            }
            assert!(sound.iter().all(|m| messages.contains(m)), "bit {bit}: {items:?}");
        }
    }

    #[test]
    fn a_lost_frame_shows_at_the_next() {
        for lost in 0..frames().len() - 1 {
            let mut frames = frames();
            frames.remove(lost);
            let expected = lost as u64;
            let gap = Damage::Gap { expected, got: expected + 1 };
            assert_eq!(decode(&frames.concat())[lost], Item::Damage(gap));
        }
    }

    #[rstest]
    #[case::repeated(&[0, 1, 1, 2], &[Item::Repeated(1)])]
    #[case::all_again(&[0, 1, 0, 1, 2], &[Item::Repeated(0), Item::Repeated(1)])]
    #[case::swapped(
        &[0, 2, 1, 3],
        &[Item::Damage(Damage::Gap { expected: 1, got: 2 }), Item::Repeated(1)]
    )]
    fn order_is_checked(#[case] order: &[usize], #[case] expected: &[Item]) {
        let frames = frames();
        let bytes: Vec<u8> = order.iter().flat_map(|&n| frames[n].clone()).collect();
        let other: Vec<_> =
            decode(&bytes).into_iter().filter(|i| !matches!(i, Item::Message(_))).collect();
        assert_eq!(other, expected);
    }

    #[rstest]
    #[case(b"\x1b[2J SeaBIOS\r\n", b"")]
    #[case(b"", b"[ 1.2] tail")]
    #[case(b"\x00\xff\xfe\n\n", b"\n\n\n")]
    fn noise_between_frames_is_counted(#[case] before: &[u8], #[case] after: &[u8]) {
        let frames = frames();
        let bytes = [before, &frames[0], after, &frames[1]].concat();
        let items = decode(&bytes);
        assert_eq!(sound(&items).len(), 2, "{items:?}");
        let noise: usize = items.iter().map(|i| if let Item::Noise(n) = i { *n } else { 0 }).sum();
        assert_eq!(noise, before.len() + after.len());
    }

    #[rstest]
    #[case(b"\x01\n", Damage::Head)]
    #[case(b"\x010 2 00000000\n", Damage::Head)]
    #[case(b"\x01-1 2 00000000 {}\n", Damage::Head)]
    #[case(b"\x0118446744073709551615 2 00000000 {}\n", Damage::Head)]
    #[case(b"\x010 3 00000000 {}\n", Damage::Length { stated: 3, got: 2 })]
    #[case(b"\x010 2 00000000 {}\n", Damage::Checksum(0))]
    fn each_damage_has_its_name(#[case] bytes: &[u8], #[case] damage: Damage) {
        assert_eq!(decode(bytes), [Item::Damage(damage)]);
    }

    #[test]
    fn a_sound_frame_without_a_message_is_named() {
        let payload = b"{\"dance\":1}";
        let crc = checksum(0, payload);
        let frame = format!("\u{1}0 {} {crc:08x} {{\"dance\":1}}\n", payload.len());
        let items = decode(frame.as_bytes());
        assert!(matches!(&items[..], [Item::Damage(Damage::Payload(0, _))]), "{items:?}");
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut bytes = vec![MARK];
        bytes.resize(LIMIT * 3, b'x');
        let items = decode(&bytes);
        assert!(matches!(items[0], Item::Damage(Damage::CutShort(_))), "{:?}", items[0]);
        assert_eq!(items.len(), 2, "the rest is noise");
        assert_eq!(encode(0, &Message::Fault { text: "x".repeat(LIMIT) }), None);
    }
}
