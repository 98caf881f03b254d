# One image with the four binaries; the pod says which (deploy/k8s).
#
#   docker build -t switchyard:0.1.0 .
#
# The same sources, base image and package versions give the same files
# (scripts/image_root shows it without a container engine). To fix the latter two, name
# the base by digest:
#
#   docker build --build-arg DEBIAN=debian:12-slim@sha256:... -t switchyard:0.1.0 .
ARG DEBIAN=debian:12-slim

FROM ${DEBIAN} AS build
WORKDIR /src
# Packages first: sources change more often.
COPY scripts/install_packages scripts/
RUN scripts/install_packages
COPY . .
RUN scripts/build --product && deploy/image/install_files build/release /out

FROM ${DEBIAN}
COPY deploy/image/provision deploy/image/runtime-packages /provision/
RUN /provision/provision && rm -r /provision
COPY --from=build /out /
# Nothing is written: run it with a read-only root (docker run --read-only).
USER 65532:65532
EXPOSE 30000 30001 7000 9000 7001 9001
ENTRYPOINT ["/usr/bin/switchyard"]
CMD ["serve", "--model=/usr/share/switchyard/models/demo", "--host=0.0.0.0"]
