#!/usr/bin/env bash
# Servers keep a stream of events open by comments while nothing else is to be said: a model
# loads, or others are before it. By the standard (HTML, server-sent events) a reader passes
# over them. Go programs speak to such servers by go-openai.
# Guess: it reads the first token behind any number of comments.
# Seen: it gives up at the 151st, with an error about messages that are empty.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_go github.com/sashabaranov/go-openai@v1.43.0
cat >"$lab/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	openai "github.com/sashabaranov/go-openai"
)

func ask(comments int) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, strings.Repeat(": waiting\n\n", comments))
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a token\"}}]}\n\ndata: [DONE]\n\n")
	}))
	defer server.Close()
	config := openai.DefaultConfig("a key")
	config.BaseURL = server.URL
	asked := openai.ChatCompletionRequest{Model: "a", Stream: true}
	stream, err := openai.NewClientWithConfig(config).CreateChatCompletionStream(context.Background(), asked)
	if err != nil {
		return err.Error()
	}
	defer stream.Close()
	part, err := stream.Recv()
	if err != nil {
		return err.Error()
	}
	return part.Choices[0].Delta.Content
}

func main() {
	fmt.Printf("150: %s; 151: %s\n", ask(150), ask(151))
}
GO
seen=$(cd "$lab" && timeout 200 go run . 2>&1)

conclude 'go-openai 1.43.0' '150: a token; 151: a token' "$seen" \
	'150: a token; 151: stream has sent too many empty messages'
