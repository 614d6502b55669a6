//! The part of protobuf's wire format that is needed to walk a file and skip most of it.

use std::io::{self, Read, Seek};

/// A reader that knows its position. Skips unneeded contents by seeking, so that a graph of gigabytes costs a few
/// thousand small reads.
#[derive(Debug)]
pub(super) struct Walker<R> {
    reader: R,
    at: u64,
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) value: Value,
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// A number, which was already read.
    Varint(u64),
    /// Eight or four bytes, which were already skipped.
    Fixed,
    /// Bytes follow up to this position: a string, or a message to walk into.
    Until(u64),
}

impl<R: Read + Seek> Walker<R> {
    /// Starts at the beginning of the reader.
    pub(super) fn new(reader: R) -> Self {
        Self { reader, at: 0 }
    }

    /// Returns the next field of a message that ends at `end`, or `None` at its end.
    ///
    /// # Errors
    /// Returns `InvalidData` if the bytes are not protobuf, and `UnexpectedEof` if the file ends within a field.
    pub(super) fn field(&mut self, end: u64) -> io::Result<Option<Field>> {
        if self.at >= end {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.fixed(8, end)?,
            2 => {
                let length = self.varint()?;
                let until = self.at.checked_add(length).filter(|until| *until <= end);
                Value::Until(until.ok_or(io::ErrorKind::UnexpectedEof)?)
            }
            5 => self.fixed(4, end)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        // A number must not cross the end of its message.
        if number == 0 || self.at > end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Some(Field { number, value }))
    }

    /// Returns the current position.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Moves forward to a position without reading.
    pub(super) fn skip_to(&mut self, until: u64) -> io::Result<()> {
        let ahead = i64::try_from(until.saturating_sub(self.at)).map_err(|_| io::ErrorKind::InvalidData)?;
        self.reader.seek_relative(ahead)?;
        self.at = until;
        Ok(())
    }

    /// Reads text up to a position. Names are short; text of more than 64 KiB is invalid.
    pub(super) fn text(&mut self, until: u64) -> io::Result<String> {
        let length = until.saturating_sub(self.at);
        if length > 1 << 16 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = String::new();
        let read = self.reader.by_ref().take(length).read_to_string(&mut text)?;
        if read as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at = until;
        Ok(text)
    }

    fn fixed(&mut self, length: u64, end: u64) -> io::Result<Value> {
        let until = self.at + length;
        if until > end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.skip_to(until)?;
        Ok(Value::Fixed)
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            self.at += 1;
            let [byte] = byte;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn fields_are_walked_and_skipped() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 0, 0, 0, 0, 0x22, 0x01, b'x'];
        let end = bytes.len() as u64;
        let mut walker = Walker::new(Cursor::new(bytes));
        assert_eq!(walker.field(end).unwrap().unwrap(), Field { number: 1, value: Value::Varint(150) });
        assert_eq!(walker.field(end).unwrap().unwrap(), Field { number: 2, value: Value::Until(7) });
        assert_eq!(walker.text(7).unwrap(), "hi");
        assert_eq!(walker.field(end).unwrap().unwrap(), Field { number: 3, value: Value::Fixed });
        assert_eq!(walker.field(end).unwrap().unwrap(), Field { number: 4, value: Value::Until(15) });
        walker.skip_to(15).unwrap();
        assert_eq!(walker.field(end).unwrap(), None);
    }

    #[test]
    fn lengths_past_the_end_and_unterminated_numbers_are_errors() {
        let mut long = Walker::new(Cursor::new([0x12, 0x7f, 0x00]));
        assert_eq!(long.field(3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut endless = Walker::new(Cursor::new([0xff; 16]));
        assert_eq!(endless.field(16).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut across = Walker::new(Cursor::new([0x08, 0x96, 0x01]));
        assert_eq!(across.field(2).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut group = Walker::new(Cursor::new([0x0b]));
        assert_eq!(group.field(1).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
