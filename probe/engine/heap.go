package engine

import "github.com/probed/probed/probe"

// A heap orders values by a moment, earliest first.
type heap[T any] []timed[T]

type timed[T any] struct {
	at    probe.Instant
	value T
}

// push adds a value.
func (h *heap[T]) push(at probe.Instant, v T) {
	*h = append(*h, timed[T]{at, v})
	q := *h
	i := len(q) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if q[parent].at <= q[i].at {
			break
		}
		q[parent], q[i] = q[i], q[parent]
		i = parent
	}
}

// due reports whether the earliest value's moment has come.
func (h heap[T]) due(now probe.Instant) bool { return len(h) > 0 && h[0].at <= now }

// pop removes the earliest value.
func (h *heap[T]) pop() timed[T] {
	q := *h
	top := q[0]
	last := len(q) - 1
	q[0] = q[last]
	q[last] = timed[T]{}
	q = q[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && q[child+1].at < q[child].at {
			child++
		}
		if q[i].at <= q[child].at {
			break
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
	*h = q
	return top
}
