//! Makes the `:authority` of a client on a unix socket one that an HTTP/2 server takes.
//!
//! gRPC's C core, and so grpcio, sends the percent-encoded path of the socket (`%2Frun%2Fauthz.sock`), which h2 refuses
//! with a reset of the stream, since a host name has no `%`. The name means nothing on a unix socket, so each octet that
//! a host name cannot have becomes `-` here, before h2 reads it.
//!
//! INVARIANT (same length): a name of another length would take other room in the table of header compression
//! (RFC 7541 §4.1), and client and server would no longer mean the same by its entries.

use super::frames::{CONTINUATION, FrameHeader, HEADERS};

const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const NAME: &[u8; 10] = b":authority";
/// Index of `:authority` in the static table (RFC 7541, appendix A).
const INDEX: u32 = 1;
/// Longest integers that are followed; none in a header block of 16 KiB is longer.
const MAX_SHIFT: u32 = 28;

/// Position of the next octet in a frame.
#[derive(Clone, Copy, Debug)]
enum BlockPosition {
    PadLength,
    Priority { left: usize },
    Block,
    Rest,
}

/// Position of the next octet in a header block (RFC 7541 §6).
#[derive(Clone, Copy, Debug)]
enum In {
    Field,
    /// An index or a size that goes on.
    Number {
        value: u32,
        shift: u32,
        then: Then,
    },
    NameLength,
    NameNumber {
        value: u32,
        shift: u32,
        is_plain: bool,
    },
    Name {
        left: u32,
        matched: Option<usize>,
    },
    ValueLength {
        is_authority: bool,
    },
    ValueNumber {
        value: u32,
        shift: u32,
        is_name: bool,
    },
    Value {
        left: u32,
        is_name: bool,
    },
}

/// Meaning of a number.
#[derive(Clone, Copy, Debug)]
enum Then {
    Nothing,
    NameIndex,
}

/// Follows the header blocks that one client sends.
#[derive(Debug)]
pub(super) struct Rewriter {
    at: BlockPosition,
    field: In,
    /// Octets of the frame that are not read yet, padding included.
    left: usize,
    padding: usize,
    flags: u8,
    /// The octets cannot be followed any more. They pass unchanged.
    is_lost: bool,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self {
            at: BlockPosition::Rest,
            field: In::Field,
            left: 0,
            padding: 0,
            flags: 0,
            is_lost: false,
        }
    }
}

impl Rewriter {
    /// A frame begins.
    pub(super) fn begin_frame(&mut self, frame: FrameHeader) {
        self.left = frame.length;
        self.padding = 0;
        self.flags = frame.flags;
        match frame.kind {
            HEADERS => {
                self.field = In::Field;
                if frame.flags & PADDED != 0 {
                    self.at = BlockPosition::PadLength;
                } else {
                    self.begin_block(frame.flags & PRIORITY != 0);
                }
            }
            CONTINUATION => self.begin_block(false),
            _ => self.at = BlockPosition::Rest,
        }
    }

    /// Rewrites the next octets of the frame's payload.
    pub(super) fn rewrite(&mut self, payload: &mut [u8]) {
        for octet in payload {
            // Most octets do not belong to a header, and are skipped at once.
            if self.is_lost || matches!(self.at, BlockPosition::Rest) {
                return;
            }
            self.step(octet);
        }
    }

    fn step(&mut self, octet: &mut u8) {
        self.left = self.left.saturating_sub(1);
        match self.at {
            BlockPosition::PadLength => {
                self.padding = usize::from(*octet);
                self.begin_block(self.flags & PRIORITY != 0);
            }
            BlockPosition::Priority { left: 1 } => self.begin_block(false),
            BlockPosition::Priority { left } => {
                self.at = BlockPosition::Priority { left: left.saturating_sub(1) }
            }
            BlockPosition::Block => {
                self.header(octet);
                if self.left <= self.padding {
                    self.end_block();
                }
            }
            BlockPosition::Rest => {}
        }
    }

    fn begin_block(&mut self, has_priority: bool) {
        if has_priority {
            self.at = BlockPosition::Priority { left: 5 };
        } else if self.left > self.padding {
            self.at = BlockPosition::Block;
        } else {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        self.at = BlockPosition::Rest;
        if self.flags & END_HEADERS != 0 {
            self.field = In::Field;
        }
    }

    /// One octet of a header block.
    fn header(&mut self, octet: &mut u8) {
        self.field = match self.field {
            In::Field => match *octet {
                indexed if indexed & 0x80 != 0 => number(indexed, 0x7f, Then::Nothing),
                literal if literal & 0xc0 == 0x40 => number(literal, 0x3f, Then::NameIndex),
                size if size & 0xe0 == 0x20 => number(size, 0x1f, Then::Nothing),
                literal => number(literal, 0x0f, Then::NameIndex),
            },
            In::Number { value, shift, then } => {
                let more = self.more(*octet, value, shift);
                match more {
                    Some((value, true)) => {
                        In::Number { value, shift: shift.saturating_add(7), then }
                    }
                    Some((value, false)) => after_number(value, then),
                    None => In::Field,
                }
            }
            In::NameLength => {
                let is_plain = *octet & 0x80 == 0;
                match u32::from(*octet & 0x7f) {
                    0x7f => In::NameNumber { value: 0x7f, shift: 0, is_plain },
                    length => name(length, is_plain),
                }
            }
            In::NameNumber { value, shift, is_plain } => match self.more(*octet, value, shift) {
                Some((value, true)) => {
                    In::NameNumber { value, shift: shift.saturating_add(7), is_plain }
                }
                Some((value, false)) => name(value, is_plain),
                None => In::Field,
            },
            In::Name { left, matched } => {
                let matched = matched.filter(|at| NAME.get(*at) == Some(octet));
                let matched = matched.map(|at| at.saturating_add(1));
                match left.saturating_sub(1) {
                    0 => In::ValueLength { is_authority: matched == Some(NAME.len()) },
                    left => In::Name { left, matched },
                }
            }
            In::ValueLength { is_authority } => {
                let is_name = is_authority && *octet & 0x80 == 0;
                match u32::from(*octet & 0x7f) {
                    0x7f => In::ValueNumber { value: 0x7f, shift: 0, is_name },
                    length => value(length, is_name),
                }
            }
            In::ValueNumber { value: before, shift, is_name } => {
                match self.more(*octet, before, shift) {
                    Some((value, true)) => {
                        In::ValueNumber { value, shift: shift.saturating_add(7), is_name }
                    }
                    Some((length, false)) => value(length, is_name),
                    None => In::Field,
                }
            }
            In::Value { left, is_name } => {
                if is_name
                    && !matches!(*octet, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_')
                {
                    *octet = b'-';
                }
                value(left.saturating_sub(1), is_name)
            }
        };
    }

    /// One more octet of a number (RFC 7541 §5.1): its value so far, and whether it goes on.
    fn more(&mut self, octet: u8, value: u32, shift: u32) -> Option<(u32, bool)> {
        let part = u32::from(octet & 0x7f).checked_shl(shift).filter(|_| shift <= MAX_SHIFT);
        let sum = part.and_then(|part| value.checked_add(part));
        if sum.is_none() {
            self.is_lost = true;
        }
        sum.map(|sum| (sum, octet & 0x80 != 0))
    }
}

fn number(octet: u8, mask: u8, then: Then) -> In {
    match octet & mask {
        value if value == mask => In::Number { value: u32::from(value), shift: 0, then },
        value => after_number(u32::from(value), then),
    }
}

const fn after_number(value: u32, then: Then) -> In {
    match then {
        Then::Nothing => In::Field,
        Then::NameIndex if value == 0 => In::NameLength,
        Then::NameIndex => In::ValueLength { is_authority: value == INDEX },
    }
}

const fn name(length: u32, is_plain: bool) -> In {
    if length == 0 {
        return In::ValueLength { is_authority: false };
    }
    In::Name { left: length, matched: if is_plain { Some(0) } else { None } }
}

const fn value(left: u32, is_name: bool) -> In {
    if left == 0 { In::Field } else { In::Value { left, is_name } }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::frames::{Frames, StreamPart};
    use super::*;

    const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    fn literal(start: &[u8], value: &[u8]) -> Vec<u8> {
        [start, &[u8::try_from(value.len()).unwrap()], value].concat()
    }

    /// Rewrites in pieces of every size.
    fn rewritten(frames: &[Vec<u8>]) -> Vec<u8> {
        let whole = [START.to_vec(), frames.concat()].concat();
        let mut expected: Option<Vec<u8>> = None;
        for size in 1..=whole.len() {
            let mut bytes = whole.clone();
            let (mut frames, mut rewriter) = (Frames::default(), Rewriter::default());
            for mut chunk in bytes.chunks_mut(size) {
                while let Some(part) = frames.next(&mut chunk) {
                    match part {
                        StreamPart::FrameHeader(frame) => rewriter.begin_frame(frame),
                        StreamPart::Payload(payload) => rewriter.rewrite(payload),
                    }
                }
            }
            assert_eq!(&bytes, expected.get_or_insert_with(|| bytes.clone()), "{size}");
        }
        expected.unwrap().split_off(START.len())
    }

    /// The name of the socket is changed, by index and by name, and nothing else is.
    #[test]
    fn only_the_authority_changes() {
        let path = b"%2Ftmp%2Fx.sock";
        let name = literal(&[0x40], NAME);
        let block = |authority: &[u8]| {
            [
                literal(&[0x41], authority),
                literal(&name, authority),
                literal(&[0x01], authority),
                vec![0x83, 0xff, 0x80, 0x01, 0x3f, 0xe1, 0x1f],
                literal(&literal(&[0x10], b"x-path"), path),
                literal(&[0x44], path),
            ]
            .concat()
        };
        for flags in [END_HEADERS, END_HEADERS | PRIORITY, END_HEADERS | PADDED, 0x2c] {
            let payload = |authority: &[u8]| {
                let mut payload = Vec::new();
                if flags & PADDED != 0 {
                    payload.push(3);
                }
                if flags & PRIORITY != 0 {
                    payload.extend([0; 5]);
                }
                payload.extend(block(authority));
                if flags & PADDED != 0 {
                    payload.extend(b"%%%");
                }
                payload
            };
            let frames = |authority: &[u8]| {
                [
                    frame(4, 0, b"\x41\x01%"),
                    frame(1, flags, &payload(authority)),
                    frame(0, 1, b"%2F"),
                    frame(1, flags, &payload(authority)),
                ]
            };
            assert_eq!(
                frames(b"-2Ftmp-2Fx.sock").concat(),
                rewritten(&frames(path)),
                "flags {flags:x}"
            );
        }
    }

    /// A header block may be cut anywhere into frames.
    #[test]
    fn continuations() {
        let block =
            |authority: &[u8]| [literal(&[0x41], authority), literal(&[0x44], b"/%")].concat();
        let (before, after) = (block(b"%2Fx"), block(b"-2Fx"));
        for cut in 0..=before.len() {
            let frames = |block: &[u8]| {
                [
                    frame(1, 0, &block[..cut]),
                    frame(9, END_HEADERS, &block[cut..]),
                    frame(6, 0, b"%"),
                ]
            };
            assert_eq!(frames(&after).concat(), rewritten(&frames(&before)), "{cut}");
        }
    }

    /// Compressed octets, and octets that cannot be followed, pass unchanged.
    #[test]
    fn what_is_not_understood_passes() {
        let compressed = [&[0x41, 0x83][..], b"%%%"].concat();
        let endless = [&[0xff; 12][..], b"%%%"].concat();
        for block in [compressed, endless] {
            let frames = [frame(1, END_HEADERS, &block)];
            assert_eq!(frames.concat(), rewritten(&frames));
        }
    }
}
