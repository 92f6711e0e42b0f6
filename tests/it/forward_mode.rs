//! A forward listener: programs that honour `HTTPS_PROXY` call Collibra's own address, verify the
//! local authority, and are served like any others.

mod apps;
mod authority;
mod hostile;
mod java;
mod lifecycle;
mod programs;
mod rig;
mod served;
mod tunnels;
