//! Frames as a guest writes them, by their description.

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

/// A frame as a guest writes it.
pub(crate) fn frame(sequence: u64, message: &serde_json::Value) -> Vec<u8> {
    let payload = message.to_string();
    let crc = crc32(payload.as_bytes()) ^ crc32(&sequence.to_le_bytes());
    format!("\u{1}{sequence} {} {crc:08x} {payload}\n", payload.len()).into_bytes()
}
