# The image of the Helm chart: docker build -t odgm:0.1.0 .
FROM rust:1.91-bookworm AS build
WORKDIR /odgm
COPY . .
RUN cargo build --release --locked -p odgm-node

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /odgm/target/release/odgm /usr/local/bin/odgm
USER 10001:10001
EXPOSE 7447 7448 8090
ENTRYPOINT ["/usr/local/bin/odgm"]
CMD ["start"]
