//! quorate-transport-grpc
