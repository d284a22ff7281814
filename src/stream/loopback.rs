//! Connections that do not leave the machine.

use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::net::sockopt::set_tcp_congestion;

/// Reno (RFC 5681) is in every kernel, and everybody may choose it.
const CONGESTION_CONTROL: &str = "reno";

/// Takes congestion control that paces away from the socket `fd` at `ip`, and from whom it accepts, if that is
/// loopback. There is no bottleneck to be found there, and BBR, which may be the system's choice, sends by
/// timers: what those send delays others.
/// To be called before it connects or accepts: who has begun to pace does not stop.
pub fn unpaced(fd: impl AsFd, ip: IpAddr) {
    if ip.to_canonical().is_loopback() {
        // A sandbox may forbid it: then it stays as it was.
        let _ = set_tcp_congestion(fd, CONGESTION_CONTROL);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::sockopt::tcp_congestion;

    use super::*;

    #[test]
    fn what_stays_on_the_machine_is_not_paced_and_nothing_else_is_changed() {
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        for (ip, unpaces) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            let socket = socket();
            let before = tcp_congestion(&socket).unwrap();
            unpaced(&socket, ip.parse().unwrap());
            let expected = if unpaces { CONGESTION_CONTROL } else { &before };
            assert_eq!(tcp_congestion(&socket).unwrap(), expected, "{ip}");
        }
    }
}
