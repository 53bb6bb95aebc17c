//! Registries as people have configured them, and every kind of login, against docker-registry: in each way an image is pushed,
//! pulled, built from and pushed by a build.

mod files;
mod logins;
mod place;
mod tls;
