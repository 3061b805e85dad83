//! Follows the HTTP/2 frames that one client sends, by their headers alone (RFC 9113 §4.1).

/// Length of the client connection preface (RFC 9113 §3.4).
pub(super) const PREFACE: usize = 24;
/// Length of a frame header.
pub(super) const HEADER: usize = 9;
/// Frame types (RFC 9113 §6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Octets of the payload.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

/// Part of the octets that a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamPart<'a> {
    /// A frame begins.
    FrameHeader(FrameHeader),
    /// Octets of the payload of the last frame that began. They may come in several parts.
    Payload(&'a mut [u8]),
}

/// Position of the next octet in the stream of frames.
#[derive(Clone, Copy, Debug)]
enum Position {
    Preface { left: usize },
    Header { read: usize, octets: [u8; HEADER] },
    Payload { left: usize },
}

const FRAME_START: Position = Position::Header { read: 0, octets: [0; HEADER] };

/// Cuts octets into frames, however they are split into reads.
#[derive(Debug)]
pub(super) struct Frames {
    position: Position,
}

impl Default for Frames {
    fn default() -> Self {
        Self { position: Position::Preface { left: PREFACE } }
    }
}

impl Frames {
    /// Takes the next part from the start of `octets`. Returns `None` if the octets end first.
    pub(super) fn next<'a>(&mut self, octets: &mut &'a mut [u8]) -> Option<StreamPart<'a>> {
        loop {
            match self.position {
                Position::Preface { left } => {
                    let taken = take(octets, left)?.len();
                    let left = left.saturating_sub(taken);
                    self.position =
                        if left == 0 { FRAME_START } else { Position::Preface { left } };
                }
                Position::Header { read, octets: mut header } => {
                    let missing = header.get_mut(read..).unwrap_or_default();
                    let taken = take(octets, missing.len())?;
                    for (place, octet) in missing.iter_mut().zip(taken.iter()) {
                        *place = *octet;
                    }
                    let read = read.saturating_add(taken.len());
                    if read < HEADER {
                        self.position = Position::Header { read, octets: header };
                        continue;
                    }
                    let frame = read_header(header);
                    self.payload(frame.length);
                    return Some(StreamPart::FrameHeader(frame));
                }
                Position::Payload { left } => {
                    let payload = take(octets, left)?;
                    self.payload(left.saturating_sub(payload.len()));
                    return Some(StreamPart::Payload(payload));
                }
            }
        }
    }

    const fn payload(&mut self, left: usize) {
        self.position = if left == 0 { FRAME_START } else { Position::Payload { left } };
    }
}

/// Takes at most `count` octets from the start of `octets`. Returns `None` if `octets` is empty.
fn take<'a>(octets: &mut &'a mut [u8], count: usize) -> Option<&'a mut [u8]> {
    if octets.is_empty() {
        return None;
    }
    let count = count.min(octets.len());
    let (taken, rest) = std::mem::take(octets).split_at_mut_checked(count)?;
    *octets = rest;
    Some(taken)
}

fn read_header(header: [u8; HEADER]) -> FrameHeader {
    let [high, middle, low, kind, flags, ..] = header;
    let length = u32::from_be_bytes([0, high, middle, low]);
    // 24 bits always fit.
    FrameHeader { length: usize::try_from(length).unwrap_or(usize::MAX), kind, flags }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Frames are the same however the octets are split.
    #[test]
    fn frames_of_any_split() {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let frames: [(u8, u8, &[u8]); 4] =
            [(4, 0, b""), (HEADERS, 4, b"abcdefghijkl"), (DATA, 1, b"x"), (6, 0, b"12345678")];
        for (kind, flags, payload) in frames {
            sent.extend([0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1]);
            sent.extend(payload);
        }
        for size in 1..=sent.len() {
            let mut bytes = sent.clone();
            let mut follower = Frames::default();
            let mut seen: Vec<(FrameHeader, Vec<u8>)> = Vec::new();
            for mut chunk in bytes.chunks_mut(size) {
                while let Some(part) = follower.next(&mut chunk) {
                    match part {
                        StreamPart::FrameHeader(frame) => seen.push((frame, Vec::new())),
                        StreamPart::Payload(octets) => seen.last_mut().unwrap().1.extend(&*octets),
                    }
                }
            }
            let expected: Vec<_> = frames
                .iter()
                .map(|(kind, flags, payload)| {
                    let frame = FrameHeader { length: payload.len(), kind: *kind, flags: *flags };
                    (frame, payload.to_vec())
                })
                .collect();
            assert_eq!(expected, seen, "{size}");
        }
    }
}
