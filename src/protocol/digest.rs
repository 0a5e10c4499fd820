//! Content digests: the only names under which Roadstead keeps bytes.
//!
//! A `Digest` is always of a registered algorithm, complete and lowercase, and prints back to
//! exactly what was parsed. Reading the bytes that it names is left to the store and the fills.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A registered digest algorithm (OCI image-spec, descriptor, "Registered Algorithms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which every implementation must support.
    Sha256,
    /// SHA-512, which implementations may support.
    Sha512,
}

/// The digest of some bytes, printed as `sha256:<64 lowercase hex>` or `sha512:<128 lowercase
/// hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Value);

/// Digests bytes as they arrive.
#[derive(Debug, Clone)]
pub struct Hasher(State);

/// Why a string is not a digest that we can verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `:` between an algorithm and its hex.
    #[error("a digest is written <algorithm>:<hex>")]
    NoAlgorithm,
    /// The algorithm is not registered, hence cannot be verified here.
    #[error("the digest algorithm {0:?} is neither sha256 nor sha512")]
    UnknownAlgorithm(String),
    /// The hex is too short or too long for its algorithm.
    #[error("a {} digest has {} hex digits, not {found}", algorithm.as_str(), 2 * algorithm.digest_len())]
    Length {
        /// The algorithm that the digest claims.
        algorithm: Algorithm,
        /// How many characters followed the colon.
        found: usize,
    },
    /// Something else than `0-9a-f` stands after the colon.
    #[error("the digits of a digest are 0-9 and a-f")]
    NotHex,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Value {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

#[derive(Debug, Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

// === impl Algorithm ===

impl Algorithm {
    /// The algorithm as it stands before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of its digests in bytes; their hex is twice as long.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::UnknownAlgorithm(text.to_owned())),
        }
    }
}

/// The longest digest as text: `sha512:` and its hex.
const MAX_TEXT_BYTES: usize = 7 + 128;

// === impl Digest ===

impl Digest {
    /// Parses `<algorithm>:<hex>` strictly: registered algorithm, exact length, lowercase hex
    /// (OCI image-spec, descriptor, "Digests").
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        let algorithm = algorithm.parse::<Algorithm>()?;
        if hex.len() != 2 * algorithm.digest_len() {
            return Err(DigestError::Length { algorithm, found: hex.chars().count() });
        }
        match algorithm {
            Algorithm::Sha256 => decode_hex(hex).map(Value::Sha256),
            Algorithm::Sha512 => decode_hex(hex).map(Value::Sha512),
        }
        .map(Self)
        .ok_or(DigestError::NotHex)
    }

    /// The algorithm that made it.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw digest, `algorithm().digest_len()` bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes,
        }
    }

    /// The digest whose raw bytes are `bytes`, if they are of that algorithm's length.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let value = match algorithm {
            Algorithm::Sha256 => Value::Sha256(bytes.try_into().ok()?),
            Algorithm::Sha512 => Value::Sha512(bytes.try_into().ok()?),
        };
        Some(Self(value))
    }

    /// The lowercase hex that follows the colon.
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(2 * self.as_bytes().len());
        for byte in self.as_bytes() {
            hex.extend([hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
        }
        hex
    }

    /// Digests `bytes` in one go.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.algorithm().as_str();
        let text = name.bytes().chain(*b":").chain(self.as_bytes().iter().flat_map(|byte| {
            let [high, low] = [byte >> 4, byte & 0xf].map(hex_digit);
            [high as u8, low as u8]
        }));
        let mut buffer = [0_u8; MAX_TEXT_BYTES];
        let mut len = 0;
        for (place, byte) in buffer.iter_mut().zip(text) {
            *place = byte;
            len += 1;
        }
        let text = buffer.get(..len).and_then(|text| std::str::from_utf8(text).ok());
        // `pad` keeps width and alignment working in tables and logs.
        f.pad(text.unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

// === impl Hasher ===

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            State::Sha256(state) => Value::Sha256(state.finalize().into()),
            State::Sha512(state) => Value::Sha512(state.finalize().into()),
        })
    }
}

// === hex ===

fn decode_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, odd) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !odd.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_value(*high)? << 4 | hex_value(*low)?;
    }
    Some(bytes)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        assert!(Digest::of(Algorithm::Sha512, b"").hex().starts_with("cf83e1357eefb8bd"));
    }

    #[test]
    fn only_registered_algorithms_are_accepted() {
        let unknown = Digest::parse("md5:d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(unknown, Err(DigestError::UnknownAlgorithm("md5".to_owned())));
        assert!(Digest::parse(&EMPTY.replace("sha256", "SHA256")).is_err());
    }

    #[test]
    fn uppercase_hex_is_refused() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        assert_eq!(Digest::parse(&upper), Err(DigestError::NotHex));
    }

    #[test]
    fn a_wrong_length_is_named() {
        let error = Digest::parse("sha256:abc").expect_err("three digits are too few");
        assert_eq!(error.to_string(), "a sha256 digest has 64 hex digits, not 3");
        assert!(Digest::parse(&format!("{EMPTY}0")).is_err());
        assert_eq!(Digest::parse(""), Err(DigestError::NoAlgorithm));
    }

    #[test]
    fn text_that_is_not_ascii_is_refused_without_a_panic() {
        assert_eq!(Digest::parse(&format!("sha256:{}", "é".repeat(32))), Err(DigestError::NotHex));
    }

    #[test]
    fn it_travels_through_json_as_a_string() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let json = serde_json::to_string(&digest).expect("a string serialises");
        assert_eq!(json, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("its own output"), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:zz\"").is_err());
    }

    fn digests() -> impl Strategy<Value = Digest> {
        let algorithms = prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)];
        (algorithms, any::<Vec<u8>>()).prop_map(|(algorithm, seed)| Digest::of(algorithm, &seed))
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(digest in digests()) {
            prop_assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
            prop_assert_eq!(Digest::from_bytes(digest.algorithm(), digest.as_bytes()), Some(digest));
        }

        #[test]
        fn what_parses_prints_back(text in "(sha256|sha512|.{0,3}):?([0-9a-f]{64}|[0-9a-f]{128}|.{0,70})") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn chunking_does_not_change_the_digest(bytes: Vec<u8>, size in 1_usize..64) {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            bytes.chunks(size).for_each(|chunk| hasher.update(chunk));
            prop_assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha256, &bytes));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Digest::parse(&text);
        }
    }
}
