//! Text form of certificates and CRLs (RFC 7468).

use der::pem::{self, LineEnding};

/// The longest text that is read, in bytes.
pub const MAX_PEM: usize = 64 * 1024;

/// What the text says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// `CERTIFICATE`
    Certificate,
    /// `X509 CRL`
    Crl,
}

/// A text that is not PEM of the expected label, or is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not PEM of the expected kind, of at most {MAX_PEM} bytes")]
pub struct NotPem;

impl Label {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "CERTIFICATE",
            Self::Crl => "X509 CRL",
        }
    }
}

/// Writes DER objects one after the other.
///
/// # Errors
/// [`NotPem`] only where an object is too large for PEM.
pub fn to_pem<T: AsRef<[u8]>>(
    label: Label,
    objects: impl IntoIterator<Item = T>,
) -> Result<String, NotPem> {
    objects
        .into_iter()
        .map(|der| pem::encode_string(label.as_str(), LineEnding::LF, der.as_ref()))
        .collect::<Result<String, _>>()
        .map_err(|_| NotPem)
}

/// Reads DER objects one after the other; nothing but white space may be between them.
///
/// # Errors
/// [`NotPem`].
pub fn from_pem(label: Label, text: &str) -> Result<Vec<Vec<u8>>, NotPem> {
    if text.len() > MAX_PEM {
        return Err(NotPem);
    }
    let end = format!("-----END {}-----", label.as_str());
    let mut objects = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let length = rest.find(&end).ok_or(NotPem)? + end.len();
        let (object, after) = rest.split_at(length);
        if !object.starts_with("-----BEGIN ") {
            return Err(NotPem);
        }
        let (found, der) = pem::decode_vec(object.as_bytes()).map_err(|_| NotPem)?;
        if found != label.as_str() {
            return Err(NotPem);
        }
        objects.push(der);
        rest = after.trim_start();
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let objects = vec![vec![1; 100], vec![2], vec![3; 48]];
        for label in [Label::Certificate, Label::Crl] {
            let text = to_pem(label, &objects).unwrap();
            assert_eq!(from_pem(label, &text), Ok(objects.clone()));
            assert_eq!(from_pem(label, &text.replace('\n', "\r\n")), Ok(objects.clone()));
        }
        assert_eq!(from_pem(Label::Crl, "\n"), Ok(vec![]));
    }

    #[test]
    fn refuses_everything_else() {
        let good = to_pem(Label::Certificate, [[1, 2, 3]]).unwrap();
        for bad in [
            "x".to_owned(),
            good.replace("END", "FIN"),
            good.replace("CERTIFICATE", "PRIVATE KEY"),
            format!("text\n{good}"),
            format!("{good}text"),
            " ".repeat(MAX_PEM + 1),
        ] {
            assert_eq!(from_pem(Label::Certificate, &bad), Err(NotPem), "{bad:.40}");
        }
        assert_eq!(from_pem(Label::Crl, &good), Err(NotPem));
    }
}
