"""Prometheus metrics that every service has; a service's own stand beside the code that moves them."""

from prometheus_client import Counter, Gauge, start_http_server

UP = Gauge("qlib_crypto_up", "1 while the service works, 0 while it says that it cannot", ["service"])
CLOCK_OFFSET = Gauge("qlib_crypto_exchange_clock_offset_seconds", "How far the exchange's clock is ahead of the host's")
CLOCK_RATE = Gauge("qlib_crypto_exchange_clock_rate", "Seconds that pass at the exchange in one of the host's")
CLOCK_RATE.set(1)
REST_REQUESTS = Counter("qlib_crypto_rest_requests_total", "Requests to the exchange", ["endpoint", "outcome"])
PUBLISHED = Counter("qlib_crypto_published_total", "Entries appended to a stream", ["stream"])
DEAD_LETTERS = Counter("qlib_crypto_dead_letters_total", "Inputs set aside because they make no sense", ["origin"])


def serve_metrics(host: str, port: int) -> None:
    """Show the metrics of this process at http://host:port/metrics; port 0 leaves it off."""
    if port:
        start_http_server(port, addr=host)
