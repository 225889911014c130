class Generation:
    pass


class MultiModalConversation:
    pass


base_http_api_url = ""
