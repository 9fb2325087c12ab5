package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// dial is the loop around net.Dialer that people write: a goroutine for each target
// connects, measures how long that took, and closes; a histogram for each, on
// /metrics. With -once it connects to the one target again and again instead and
// writes a line of nanoseconds for each connection.
func dial(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("dialer", flag.ContinueOnError)
	first := flags.String("first", "", "the first target's address:port")
	n := flags.Int("n", 1, "how many targets: the following addresses")
	interval := flags.Duration("interval", time.Second, "from one connection to the next")
	listen := flags.String("listen", "127.0.0.1:9000", "where /metrics is")
	once := flags.Int("once", 0, "how many connections to make to the first target")
	if err := flags.Parse(args); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(*first)
	if err != nil {
		return err
	}
	if *once > 0 {
		return dialOnce(to, *once, *interval, out)
	}
	registry := prometheus.NewRegistry()
	rtt := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "connect_seconds", Help: "How long connect took.",
		Buckets: []float64{1e-05, 2.5e-05, 5e-05, 1e-04, 2.5e-04, 5e-04, 1e-03, 2.5e-03, 5e-03, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"target"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "connect_failures_total", Help: "Connections that failed.",
	}, []string{"target"})
	registry.MustRegister(rtt, failures)
	for i := range *n {
		target := to.String()
		go dialForever(target, *interval, *interval*time.Duration(i)/time.Duration(*n),
			rtt.WithLabelValues(target), failures.WithLabelValues(target))
		to = netip.AddrPortFrom(to.Addr().Next(), to.Port())
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return (&http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: time.Second}).ListenAndServe()
}

// plain is a dialer as it is, but for MPTCP, which would be another protocol.
func plain() *net.Dialer {
	d := &net.Dialer{Timeout: 900 * time.Millisecond}
	d.SetMultipathTCP(false)
	return d
}

// dialForever connects at every interval, beginning after phase.
func dialForever(target string, interval, phase time.Duration, rtt prometheus.Observer, failures prometheus.Counter) {
	d := plain()
	time.Sleep(phase)
	ticks := time.NewTicker(interval)
	for {
		took, err := connect(d, target)
		if err != nil {
			failures.Inc()
		} else {
			rtt.Observe(took.Seconds())
		}
		<-ticks.C
	}
}

func dialOnce(to netip.AddrPort, count int, gap time.Duration, out io.Writer) error {
	d := plain()
	var failed error
	for range count {
		time.Sleep(gap)
		took, err := connect(d, to.String())
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if _, err := fmt.Fprintln(out, took.Nanoseconds()); err != nil {
			return err
		}
	}
	return failed
}

// connect tells how long one connection took to open.
func connect(d *net.Dialer, target string) (time.Duration, error) {
	began := time.Now()
	c, err := d.DialContext(context.Background(), "tcp4", target)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	return took, c.Close()
}
