//! The content hash of a definition's text.

use std::fmt;

/// FNV-1a, 128 bits, of the text's bytes.
///
/// It tells texts apart that people wrote and that carry the same name and version by mistake; nobody gains anything
/// by a collision, because whoever may activate a definition may also change it. So five lines without a dependency
/// are enough, and they give the same number on every machine and in every version of the compiler.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionHash(pub u128);

/// Offset basis and prime of the 128-bit variant: <http://www.isthe.com/chongo/tech/comp/fnv/>.
const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl DefinitionHash {
    /// The hash of a text.
    pub fn of(text: &str) -> Self {
        Self(text.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
    }
}

impl fmt::Display for DefinitionHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

impl fmt::Debug for DefinitionHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_vectors() {
        assert_eq!(DefinitionHash::of("").0, OFFSET_BASIS);
        assert_eq!(DefinitionHash::of("a").to_string(), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(DefinitionHash::of("foobar").to_string(), "343e1662793c64bf6f0d3597ba446f18");
    }
}
