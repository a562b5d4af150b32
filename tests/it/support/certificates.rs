//! Certificates of our own, made by `openssl`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs `openssl`, which has to succeed.
pub(crate) fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate authority that nobody trusts by himself, good for two days.
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        let authority = Self { folder: folder.to_owned() };
        let (key, certificate) = (authority.file("ca.key"), authority.file("ca.pem"));
        let request =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=an authority of tests"];
        openssl(&[&request[..], &["-keyout", &key, "-out", &certificate]].concat());
        authority
    }

    pub(crate) fn certificate(&self) -> String {
        self.file("ca.pem")
    }

    /// Issues a certificate for a DNS name, and gives the files with it and with its key.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let (key, request, certificate) = (self.file("server.key"), self.file("server.csr"), self.file("server.pem"));
        let subject = format!("/CN={name}");
        openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request]);
        let extensions = self.file("extensions");
        std::fs::write(&extensions, format!("subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let (ca, ca_key) = (self.certificate(), self.file("ca.key"));
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &extensions,
            "-out",
            &certificate,
        ]);
        (certificate, key)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}
