//! Who may sign an archive: OpenPGP keys, and the one question asked of them.
//!
//! It takes certificates (the embedded ones of Debian, or a user's own keyring) and answers whether a clear-signed text is
//! theirs. It does not know what the text says.
//!
//! Source: RFC 9580, sections 5.2 (signatures), 7 (cleartext signature framework), 10.1 (transferable public keys).

use std::io::Cursor;

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag};

use crate::digest::Digest;

/// The certificates of keys/README.md.
const EMBEDDED: [&str; 6] = [
    include_str!("keys/bookworm-automatic.asc"),
    include_str!("keys/bookworm-security-automatic.asc"),
    include_str!("keys/bookworm-stable.asc"),
    include_str!("keys/trixie-automatic.asc"),
    include_str!("keys/trixie-security-automatic.asc"),
    include_str!("keys/trixie-stable.asc"),
];

/// An index is some hundred kilobytes; one of more lines or bytes than this is not one.
const LIMIT: usize = 16 << 20;
/// A real index carries two or three signatures.
const MOST_SIGNATURES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not an OpenPGP keyring: {0}")]
    Keyring(String),
    #[error("not one clear-signed text: {0}")]
    Shape(&'static str),
    #[error("no signature by a trusted key: {0}")]
    Untrusted(String),
    #[error("the signature by {signer} does not fit the text")]
    Bad { signer: String },
}

/// The keys that may sign.
#[derive(Debug, Clone)]
pub struct Keyring {
    signers: Vec<Signer>,
    digest: Digest,
}

/// One key that may sign data, with what its owner's signatures say of it. Times are seconds since 1970.
#[derive(Debug, Clone)]
struct Signer {
    key: KeyPacket,
    /// 40 upper-case hex digits.
    fingerprint: String,
    expires: Option<i64>,
    revoked: bool,
}

#[derive(Debug, Clone)]
enum KeyPacket {
    Primary(PublicKey),
    Sub(PublicSubkey),
}

impl Keyring {
    /// Debian's own archive keys, embedded in the binary.
    pub fn embedded() -> Self {
        let mut ring = Self::empty();
        for text in EMBEDDED {
            // The texts are constants of this build and a test reads each one: a broken one adds nobody.
            let _ = ring.add(text.as_bytes());
        }
        ring
    }

    /// A user's own keyring: binary or armoured, one or many certificates.
    pub fn read(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut ring = Self::empty();
        ring.add(bytes)?;
        if ring.signers.is_empty() {
            return Err(KeyError::Keyring("no key in it may sign".to_owned()));
        }
        Ok(ring)
    }

    fn empty() -> Self {
        Self {
            signers: Vec::new(),
            digest: Digest::of(b""),
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        let unreadable = |error: pgp::errors::Error| KeyError::Keyring(error.to_string());
        let (certificates, _) = SignedPublicKey::from_reader_many(Cursor::new(bytes)).map_err(unreadable)?;
        for certificate in certificates {
            self.signers.extend(signers(&certificate.map_err(unreadable)?));
        }
        let mut both = self.digest.bytes().to_vec();
        both.extend_from_slice(bytes);
        self.digest = Digest::of(&both);
        Ok(())
    }

    /// Names this set of keys: what was seen from one set's archives says nothing of another's.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The text that a trusted key signed, with `\n` line ends; `now` in seconds since 1970.
    ///
    /// Only that text counts: anything before, after or between is refused (CVE-2013-1051). One good signature by a
    /// trusted key is enough, as an archive that changes keys signs with several; a bad one by a trusted key is not
    /// outweighed. A key must have been valid when it signed, and be so now.
    pub fn verify(&self, message: &[u8], now: i64) -> Result<String, KeyError> {
        let Split { text, armour } = split(message)?;
        let canonical = text.replace('\n', "\r\n");
        let (signatures, _) = DetachedSignature::from_armor_many(Cursor::new(armour.as_bytes()))
            .map_err(|_| KeyError::Shape("its signature block cannot be read"))?;
        let mut reasons = Vec::new();
        let mut good = false;
        for (count, signature) in signatures.enumerate() {
            if count >= MOST_SIGNATURES {
                return Err(KeyError::Shape("it carries too many signatures"));
            }
            // A signature of a kind that this build does not know must not keep the known ones from counting.
            let Ok(DetachedSignature { signature }) = signature else {
                reasons.push("a signature of an unknown kind".to_owned());
                continue;
            };
            match self.judge(&signature, canonical.as_bytes(), now) {
                Ok(()) => good = true,
                Err(Verdict::Bad(signer)) => return Err(KeyError::Bad { signer }),
                Err(Verdict::Ignored(reason)) => reasons.push(reason),
            }
        }
        if good {
            return Ok(text);
        }
        if reasons.is_empty() {
            reasons.push("there is none".to_owned());
        }
        Err(KeyError::Untrusted(reasons.join("; ")))
    }

    fn judge(&self, signature: &Signature, canonical: &[u8], now: i64) -> Result<(), Verdict> {
        let ignored = |reason: String| Err(Verdict::Ignored(reason));
        if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
            return ignored("a signature over something else than a text".to_owned());
        }
        let strong = matches!(
            signature.hash_alg(),
            Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
        );
        if !strong {
            return ignored("a signature over a weak hash".to_owned());
        }
        let Some(created) = signature.created().map(|time| i64::from(time.as_secs())) else {
            return ignored("a signature without a time".to_owned());
        };
        let candidates: Vec<&Signer> = self
            .signers
            .iter()
            .filter(|signer| signer.is_named_by(signature))
            .collect();
        if candidates.is_empty() {
            return ignored(format!("signed by an unknown key ({})", issuer(signature)));
        }
        let mut bad = None;
        for signer in candidates {
            if !signer.verifies(signature, canonical) {
                bad = Some(Verdict::Bad(signer.fingerprint.clone()));
                continue;
            }
            if signer.revoked {
                return ignored(format!("the key {} was revoked", signer.fingerprint));
            }
            let lifetime = signature
                .signature_expiration_time()
                .map(|length| i64::from(length.as_secs()))
                .filter(|length| *length > 0);
            if lifetime.is_some_and(|length| created + length <= now) {
                return ignored(format!("the signature by {} expired", signer.fingerprint));
            }
            if signer.expires.is_some_and(|end| end <= created || end <= now) {
                return ignored(format!("the key {} expired", signer.fingerprint));
            }
            return Ok(());
        }
        Err(bad.unwrap_or_else(|| Verdict::Ignored("no key fits".to_owned())))
    }

    /// Fingerprint and end of each key that may sign: for the test that compares them with the README.
    #[cfg(test)]
    fn summary(&self) -> Vec<(String, Option<i64>)> {
        self.signers
            .iter()
            .map(|signer| (signer.fingerprint.clone(), signer.expires))
            .collect()
    }
}

enum Verdict {
    /// By one of ours, and wrong: somebody changed the text.
    Bad(String),
    /// Does not count, for this reason.
    Ignored(String),
}

impl Signer {
    fn is_named_by(&self, signature: &Signature) -> bool {
        let (fingerprint, id) = match &self.key {
            KeyPacket::Primary(key) => (key.fingerprint(), key.legacy_key_id()),
            KeyPacket::Sub(key) => (key.fingerprint(), key.legacy_key_id()),
        };
        signature.issuer_fingerprint().contains(&&fingerprint) || signature.issuer_key_id().contains(&&id)
    }

    fn verifies(&self, signature: &Signature, text: &[u8]) -> bool {
        match &self.key {
            KeyPacket::Primary(key) => signature.verify(key, text).is_ok(),
            KeyPacket::Sub(key) => signature.verify(key, text).is_ok(),
        }
    }
}

fn issuer(signature: &Signature) -> String {
    let fingerprint = signature
        .issuer_fingerprint()
        .first()
        .map(|fingerprint| format!("{fingerprint:X}"));
    fingerprint
        .or_else(|| signature.issuer_key_id().first().map(|id| id.to_string()))
        .unwrap_or_else(|| "unnamed".to_owned())
}

/// The keys of one certificate that may sign data: those that the certificate's own, verified signatures say so of.
fn signers(certificate: &SignedPublicKey) -> Vec<Signer> {
    let primary = &certificate.primary_key;
    let born = i64::from(primary.created_at().as_secs());
    let details = &certificate.details;
    let certifications = details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification()
                && signature.typ() != Some(SignatureType::CertRevocation)
                && signature
                    .verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let direct = details.direct_signatures.iter().filter(|signature| {
        signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
    });
    // The latest word of the owner about what the key is for counts (RFC 9580 section 5.2.3.10). Signatures that say nothing
    // of that are about something else: who else may revoke, or, of version 6, that a name is right.
    let Some(latest) = certifications
        .chain(direct)
        .filter(|signature| states_flags(signature))
        .max_by_key(|signature| signature.created())
    else {
        return Vec::new();
    };
    let end = |born: i64, signature: &Signature| {
        signature
            .key_expiration_time()
            .map(|length| i64::from(length.as_secs()))
            .filter(|length| *length > 0)
            .map(|length| born + length)
    };
    let expires = end(born, latest);
    let revoked = details
        .revocation_signatures
        .iter()
        .any(|signature| signature.verify_key(primary).is_ok());
    let mut found = Vec::new();
    if latest.key_flags().sign() {
        found.push(Signer {
            key: KeyPacket::Primary(primary.clone()),
            fingerprint: format!("{:X}", primary.fingerprint()),
            expires,
            revoked,
        });
    }
    for subkey in &certificate.public_subkeys {
        let bound = |kind| {
            subkey.signatures.iter().filter(move |signature| {
                signature.typ() == Some(kind) && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
            })
        };
        let Some(binding) = bound(SignatureType::SubkeyBinding).max_by_key(|signature| signature.created())
        else {
            continue;
        };
        // A key that signs must itself say whose it is, else anybody could adopt it (RFC 9580 section 5.2.1.9).
        let claimed = binding
            .embedded_signature()
            .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
        if !binding.key_flags().sign() || !claimed {
            continue;
        }
        let own_end = end(i64::from(subkey.key.created_at().as_secs()), binding);
        found.push(Signer {
            fingerprint: format!("{:X}", subkey.key.fingerprint()),
            expires: [expires, own_end].into_iter().flatten().min(),
            revoked: revoked || bound(SignatureType::SubkeyRevocation).next().is_some(),
            key: KeyPacket::Sub(subkey.key.clone()),
        });
    }
    found
}

fn states_flags(signature: &Signature) -> bool {
    signature.config().is_some_and(|config| {
        config
            .hashed_subpackets()
            .any(|packet| matches!(packet.data, SubpacketData::KeyFlags(_)))
    })
}

struct Split {
    /// The signed text, dashes unescaped, trailing blanks of lines dropped, `\n` between lines and none at the end.
    text: String,
    armour: String,
}

/// Takes a clear-signed message apart, accepting exactly one, from the first byte to the last (RFC 9580 section 7.1).
fn split(message: &[u8]) -> Result<Split, KeyError> {
    let shape = |rule| Err(KeyError::Shape(rule));
    if message.len() > LIMIT {
        return shape("it is too large");
    }
    let Ok(message) = std::str::from_utf8(message) else {
        return shape("it is not UTF-8");
    };
    if message.contains('\0') {
        return shape("it holds a NUL");
    }
    let mut lines = message
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line));
    if lines.next() != Some("-----BEGIN PGP SIGNED MESSAGE-----") {
        return shape("it does not begin with a clear-signed message");
    }
    loop {
        match lines.next() {
            Some("") => break,
            Some(line) if line.starts_with("Hash: ") => {}
            _ => return shape("its header holds something else than `Hash`"),
        }
    }
    let mut text: Vec<&str> = Vec::new();
    loop {
        match lines.next() {
            Some("-----BEGIN PGP SIGNATURE-----") => break,
            Some(line) => {
                // A line that begins with a dash must be escaped: otherwise where the text ends would be a matter of taste.
                let line = match line.strip_prefix("- ") {
                    Some(rest) => rest,
                    None if line.starts_with('-') => return shape("an unescaped line begins with a dash"),
                    None => line,
                };
                text.push(line.trim_end_matches([' ', '\t']));
            }
            None => return shape("the signature is missing"),
        }
    }
    let mut armour = String::from("-----BEGIN PGP SIGNATURE-----\n");
    loop {
        match lines.next() {
            Some("-----END PGP SIGNATURE-----") => {
                armour.push_str("-----END PGP SIGNATURE-----\n");
                break;
            }
            Some(line) if line.starts_with('-') => return shape("its signature block is broken"),
            Some(line) => {
                armour.push_str(line);
                armour.push('\n');
            }
            None => return shape("its signature block does not end"),
        }
    }
    if lines.any(|line| !line.is_empty()) {
        return shape("text follows the signature");
    }
    Ok(Split {
        text: text.join("\n"),
        armour,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_keys_are_those_of_the_readme() {
        let readme = include_str!("keys/README.md");
        let found = Keyring::embedded().summary();
        // Six certificates; two of them sign with the primary, four with a subkey while the primary may sign too.
        assert_eq!(found.len(), 10, "{found:?}");
        for (fingerprint, expires) in found {
            let date = jiff::Timestamp::from_second(expires.unwrap())
                .unwrap()
                .strftime("%Y-%m-%d")
                .to_string();
            let row = readme
                .lines()
                .find(|line| line.contains(&fingerprint))
                .unwrap_or_else(|| panic!("{fingerprint} is not in the README"));
            assert!(row.contains(&date), "{fingerprint} expires {date}: {row}");
        }
    }

    #[test]
    fn a_message_is_taken_apart_only_if_nothing_is_around_it() {
        let message = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOne: 1  \n- -dash\n\
                       -----BEGIN PGP SIGNATURE-----\n\nabcd\n-----END PGP SIGNATURE-----\n";
        assert_eq!(split(message.as_bytes()).unwrap().text, "One: 1\n-dash");
        let refused = |text: String, rule: &str| match split(text.as_bytes()) {
            Err(error) => assert!(error.to_string().contains(rule), "{error} is not about: {rule}"),
            Ok(_) => panic!("accepted: {text}"),
        };
        refused(format!("Codename: evil\n{message}"), "does not begin");
        refused(format!("\n{message}"), "does not begin");
        refused(format!("{message}Codename: evil\n"), "follows");
        refused(format!("{message}{message}"), "follows");
        refused(
            message.replace("Hash: SHA256", "Comment: x"),
            "something else than `Hash`",
        );
        refused(message.replace("- -dash", "-dash"), "begins with a dash");
        refused(
            message.replace("-----END PGP SIGNATURE-----\n", ""),
            "does not end",
        );
        refused(message.replace("One", "On\0e"), "NUL");
    }
}
