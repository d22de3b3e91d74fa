//! Reads the fields of a protobuf message by number, as `proto/` publishes them.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>.

use anyhow::{Context as _, bail};

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// A message as its fields, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message<'a> {
    fields: Vec<(u64, Field<'a>)>,
}

impl<'a> Message<'a> {
    pub(crate) fn read(mut bytes: &'a [u8]) -> anyhow::Result<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let field = match tag & 7 {
                0 => Field::Number(varint(&mut bytes)?),
                1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into()?)),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?)?;
                    Field::Bytes(take(&mut bytes, length)?)
                }
                5 => Field::Number(u64::from(u32::from_le_bytes(take(&mut bytes, 4)?.try_into()?))),
                kind => bail!("a field of the unknown kind {kind}"),
            };
            fields.push((tag >> 3, field));
        }
        Ok(Self { fields })
    }

    /// A number; 0 when it is left out.
    pub(crate) fn number(&self, number: u64) -> u64 {
        match self.last(number) {
            Some(Field::Number(value)) => value,
            Some(Field::Bytes(_)) | None => 0,
        }
    }

    /// Bytes; none when they are left out.
    pub(crate) fn bytes(&self, number: u64) -> Option<&'a [u8]> {
        match self.last(number) {
            Some(Field::Bytes(bytes)) => Some(bytes),
            Some(Field::Number(_)) | None => None,
        }
    }

    /// A text; empty when it is left out.
    pub(crate) fn text(&self, number: u64) -> anyhow::Result<String> {
        Ok(std::str::from_utf8(self.bytes(number).unwrap_or_default())?.to_owned())
    }

    /// A message inside; none when it is left out.
    pub(crate) fn message(&self, number: u64) -> anyhow::Result<Option<Message<'a>>> {
        self.bytes(number).map(Message::read).transpose()
    }

    /// All messages of a repeated field.
    pub(crate) fn messages(&self, number: u64) -> anyhow::Result<Vec<Message<'a>>> {
        let all = self.fields.iter().filter(|(field, _)| *field == number);
        all.map(|(_, field)| match field {
            Field::Bytes(bytes) => Message::read(bytes),
            Field::Number(_) => bail!("field {number} is a number"),
        })
        .collect()
    }

    fn last(&self, number: u64) -> Option<Field<'a>> {
        self.fields.iter().rev().find(|(field, _)| *field == number).map(|(_, field)| *field)
    }
}

fn varint(bytes: &mut &[u8]) -> anyhow::Result<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().context("a number without an end")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number of more than 64 bits")
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> anyhow::Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length).context("a field without an end")?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_number() {
        // 1: 150, 2: "ab", 3: { 1: 1 }, 3: { 1: 2 }
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'a', b'b', 0x1a, 0x02, 0x08, 0x01, 0x1a, 0x02, 0x08, 0x02];
        let message = Message::read(&bytes).unwrap();
        assert_eq!((message.number(1), message.number(9)), (150, 0));
        assert_eq!(message.text(2).unwrap(), "ab");
        let inner: Vec<u64> = message.messages(3).unwrap().iter().map(|inner| inner.number(1)).collect();
        assert_eq!(inner, [1, 2]);
    }

    #[test]
    fn what_breaks_off_is_an_error() {
        for broken in [&[0x08][..], &[0x08, 0x80], &[0x12, 0x05, b'a'], &[0x0b]] {
            assert!(Message::read(broken).is_err(), "{broken:?}");
        }
    }
}
