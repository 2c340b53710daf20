mod folder;
mod process;
mod tarball;
mod unpack;
