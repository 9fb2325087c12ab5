package rawsock

import (
	"testing"
	"time"
)

func TestSelfTestPasses(t *testing.T) {
	newNamespace(t).must(t, func() error {
		reserved, err := ReservePorts(61000, 61007)
		if err != nil {
			return err
		}
		defer reserved.Close()
		guarded, err := GuardPorts(61008, 61015)
		if err != nil {
			return err
		}
		defer guarded.Close()
		start := time.Now()
		err = SelfTest(61003, 61012)
		t.Log(time.Since(start))
		return err
	})
}
