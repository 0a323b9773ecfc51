package main

import "testing"

func TestAQueryIsAskedAndItsAnswerRead(t *testing.T) {
	query, err := queryA("api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	answer := append([]byte{}, query...)
	answer[2], answer[3], answer[7] = 0x81, 0x80, 1
	answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 198, 18, 0, 1)
	if got, err := firstA(answer, len(query)); err != nil || got != "198.18.0.1" {
		t.Fatalf("%q %v", got, err)
	}
	for cut := range answer {
		if got, err := firstA(answer[:cut], len(query)); err == nil {
			t.Fatalf("cut at %d gave %q", cut, got)
		}
	}
}

func TestANameThatDoesNotExistIsAnError(t *testing.T) {
	query, _ := queryA("nowhere.invalid.")
	answer := append([]byte{}, query...)
	answer[2], answer[3] = 0x81, 0x83
	if _, err := firstA(answer, len(query)); err != errNoName {
		t.Fatal(err)
	}
}

func TestWhatIsNoNameIsRefused(t *testing.T) {
	for _, name := range []string{"", "..", "a..b", string(make([]byte, 64))} {
		if _, err := queryA(name); err == nil {
			t.Fatalf("%q was taken", name)
		}
	}
}
