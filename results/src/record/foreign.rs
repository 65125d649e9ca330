//! Records of unknown origin: what must hold of any bytes that are read as one.

use super::{LARGEST, Record, RecordError};
use crate::plain::is_plain;

impl Record {
    /// Reads a record from the bytes of a file that anybody may have written.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > LARGEST {
            return Err(RecordError::Large);
        }
        let text = str::from_utf8(bytes).map_err(|e| RecordError::Wrong {
            place: format!("byte {}", e.valid_up_to()),
            what: "not UTF-8".into(),
        })?;
        Self::parse(text)
    }
}

/// What must hold of any bytes, for tests and for the fuzz target: they are refused with a message
/// of a line that can be printed, or are a record that its own text gives again. The record, or the
/// message; an error says what did not hold.
pub fn holds(bytes: &[u8]) -> Result<Result<Record, String>, String> {
    let record = match Record::read(bytes) {
        Ok(record) => record,
        Err(error) => {
            let message = error.to_string();
            if message.is_empty() || message.len() > 4000 || !message.chars().all(is_plain) {
                return Err(format!("a message that is none: {message:?}"));
            }
            return Ok(Err(message));
        }
    };
    let text = record.to_json();
    // It may be longer than what was read, and so than a file may be: importing looks at that.
    match Record::parse(&text) {
        Err(e) => Err(format!("its own text is refused: {e}")),
        Ok(again) if again != record => Err("its own text reads otherwise".into()),
        Ok(again) if again.to_json() != text => Err("it is written in two ways".into()),
        Ok(_) => {
            let odd = |c: char| c != '\n' && !is_plain(c);
            if text.contains(odd) {
                return Err("its text can't be printed".into());
            }
            Ok(Ok(record))
        }
    }
}
