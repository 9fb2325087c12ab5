package engine

// A queue gives out what it was given, in order. Its memory is used again.
type queue[T any] struct {
	all  []T
	head int
}

func (q *queue[T]) push(v T) { q.all = append(q.all, v) }
func (q *queue[T]) len() int { return len(q.all) - q.head }
func (q *queue[T]) first() T { return q.all[q.head] }

// pop drops the first. What is left moves to the front once it is less than what has
// gone: so each is moved once on average.
func (q *queue[T]) pop() {
	if q.head++; 2*q.head > len(q.all) {
		n := copy(q.all, q.all[q.head:])
		clear(q.all[n:])
		q.all, q.head = q.all[:n], 0
	}
}
