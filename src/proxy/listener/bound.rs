//! A listening socket, bound before anything runs, so that a port in use is told at once.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::config::Listen;
use crate::stream::loopback::unpaced;

/// Callers that may wait to be accepted, as far as the kernel lets them (`somaxconn`). What std asks for
/// is 128: of a burst of more the rest comes again after one second, three, seven and so on.
const BACKLOG: i32 = 4096;

/// A bound listener.
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// TLS over TCP.
    Tls(TcpListener),
    /// A unix socket and its path, which is removed in the end.
    Unix(UnixListener, PathBuf),
}

impl Bound {
    /// Binds `listen`. A unix socket is for its owner only, unless it is `for_others` too, who are
    /// then told apart by their user ids. A dead one is replaced.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(listen: &Listen, for_others: bool) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Ok(Self::Tcp(bind_tcp(*address)?)),
            Listen::Tls(address) => Ok(Self::Tls(bind_tcp(*address)?)),
            Listen::Unix(path) => {
                remove_dead_socket(path)?;
                // Created 0600 from the first moment: nobody connects before a chmod.
                let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
                let listener = UnixListener::bind(path);
                rustix::process::umask(mask);
                let listener = listener?;
                let mode = if for_others { 0o666 } else { 0o600 };
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
                rustix::net::listen(&listener, BACKLOG)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// The address, with the port that the system chose for port 0.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Closes this end, the workers keep theirs; a unix socket's path is to be removed in the end.
    #[must_use]
    pub fn close(self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) | Self::Tls(_) => None,
            Self::Unix(_, path) => Some(path),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Tls(listener) => Self::Tls(listener.try_clone()?),
            Self::Unix(listener, path) => Self::Unix(listener.try_clone()?, path.clone()),
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_) | Self::Tls(_) => {
                let prefix = if matches!(self, Self::Tls(_)) { "tls:" } else { "" };
                self.address().map_or(Ok(()), |address| write!(f, "{prefix}{address}"))
            }
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // It listens already: whoever was quicker keeps what the system chose.
    unpaced(&listener, address.ip());
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket that nobody listens on any more is left over from a process that died.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)
                }
                _ => Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustix::net::sockopt::tcp_congestion;

    use super::*;

    #[test]
    fn who_is_accepted_on_loopback_is_sent_to_without_pacing() {
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let bound = Bound::bind(&listen, false).unwrap();
        let _caller = TcpStream::connect(bound.address().unwrap()).unwrap();
        let Bound::Tcp(listener) = bound else { panic!("not TCP") };
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(tcp_congestion(&accepted).unwrap(), "reno");
    }
}
